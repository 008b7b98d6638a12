"""One rule says which folders of a data folder are channels: for training, uploads and S3 prefixes alike."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from classifier.contract.channels import find_channels, select_channels
from classifier.errors import DataError


def make(root: Path, *places: str) -> Path:
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_channels_are_found_by_name_with_the_pretrained_weights(tmp_path: Path) -> None:
    root = make(
        tmp_path, "train/bus/1.jpg", "test/bus/2.jpg", "pretrained/w.pth", "report/samples.jpg", ".cache/x", "a.txt"
    )
    assert find_channels(root) == {name: root / name for name in ("train", "test", "pretrained")}


def test_class_folders_alone_are_the_train_channel_even_when_one_is_called_train(tmp_path: Path) -> None:
    root = make(tmp_path, "train/1.jpg", "bus/2.jpg", "car/3.jpg")
    assert find_channels(root) == {"train": root}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["train/bus/1.jpg", "bus/1.jpg", "car/1.jpg"], r"other folders beside them \(bus/, car/\): move those into"),
        (["train/1.jpg"], "train holds no class folders: put each class's photos"),
        (["train/bus/1.jpg", "test/1.jpg"], "test holds no class folders"),
        (["train/1.jpg", "test/1.jpg"], "train holds no class folders"),
        (["validation/bus/1.jpg"], "holds validation but no train"),
        (["train/1.jpg", "bus/1.jpg", "test/bus/1.jpg"], "train holds no class folders"),
    ],
)
def test_an_ambiguous_layout_is_an_error(tmp_path: Path, places: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_channels(make(tmp_path, *places))


def test_junk_folders_never_count() -> None:
    assert select_channels({"train": True, "__MACOSX": True, ".git": True}, "photos") == ("train",)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        find_channels(tmp_path / "nowhere")

"""Selection of the channels among the folders of a data folder or S3 prefix."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from classifier.contract.channels import find_channels, select_channels
from classifier.errors import DataError


def touch(root: Path, *places: str) -> Path:
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_channels_are_found_by_name(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "train/bus/1.jpg", "test/bus/2.jpg", "pretrained/w.pth", "report/samples.jpg", ".cache/x", "a.txt"
    )
    assert find_channels(root) == {name: root / name for name in ("train", "test", "pretrained")}


def test_class_folders_form_the_train_channel_even_if_one_is_called_train(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.jpg", "bus/2.jpg", "car/3.jpg")
    assert find_channels(root) == {"train": root}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            ["train/bus/1.jpg", "bus/1.jpg", "car/1.jpg"],
            r"other folders beside them \(bus/, car/\): move those into train/",
        ),
        (["train/1.jpg"], "train contains no class folders: put the photos of each class into a folder"),
        (["train/bus/1.jpg", "test/1.jpg"], "test contains no class folders"),
        (["train/1.jpg", "test/1.jpg"], "train contains no class folders"),
        (["validation/bus/1.jpg"], "contains validation but no train"),
        (["train/1.jpg", "bus/1.jpg", "test/bus/1.jpg"], "train contains no class folders"),
    ],
)
def test_ambiguous_layouts_are_errors(tmp_path: Path, places: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_channels(touch(tmp_path, *places))


def test_junk_folders_are_ignored() -> None:
    assert select_channels({"train": True, "__MACOSX": True, ".git": True}, "photos") == ("train",)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        find_channels(tmp_path / "nowhere")


def test_tar_shards_make_a_channel(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/train-000000.tar", "test/test-000000.tar", "classes.txt")
    assert find_channels(root) == {name: root / name for name in ("train", "test")}

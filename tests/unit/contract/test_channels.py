"""Selection of the channels among the folders of a data folder or S3 prefix."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from classifier.contract.channels import find_channels, find_nested_data, has_image_extension, select_channels
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


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("training", "valid", "testing"), ("Train", "Val", "Test"), ("train", "dev", "TEST")],
)
def test_channels_are_found_by_any_of_their_usual_names(tmp_path: Path, train: str, validation: str, test: str) -> None:
    root = touch(tmp_path, f"{train}/bus/1.jpg", f"{validation}/bus/2.jpg", f"{test}/bus/3.jpg")
    assert find_channels(root) == {"train": root / train, "validation": root / validation, "test": root / test}


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
        (["train/bus/1.jpg", "valid/1.jpg"], "valid contains no class folders"),
        (
            ["train/bus/1.jpg", "val/bus/1.jpg", "valid/bus/1.jpg"],
            "two folders for the same channel among train/, val/, valid/: keep one of them",
        ),
        (["train/bus/1.jpg", "val/bus/1.jpg", "spare/bus/1.jpg"], r"other folders beside them \(spare/\)"),
    ],
)
def test_ambiguous_layouts_are_errors(tmp_path: Path, places: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_channels(touch(tmp_path, *places))


def test_channels_beside_other_folders_are_named(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"dataset/{split}/{label}/1.jpg" for split in ("train", "val") for label in "ab"))
    touch(root, "demo/1.jpg", "README.md")
    with pytest.raises(
        DataError, match=f"pass {root}/dataset, which holds train/, val/ with 4 photos in 2 class .* .demo/ "
    ):
        find_channels(root)


def test_class_folders_beside_other_folders_are_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/Images/cat/1.jpg", "images/Images/dog/1.jpg", "annotations/Annotation/cat/1")
    with pytest.raises(DataError, match=f"one class only, 'images', .* {root}/images/Images, which holds 2 photos"):
        find_channels(root)


def test_photos_of_a_class_may_be_in_subfolders(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/2019/1.jpg", "cat/2020/1.jpg", "dog/2019/1.jpg")
    assert find_channels(root) == {"train": root}


def test_nested_data_is_found_with_the_most_photos_first(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a/few/{label}/1.jpg" for label in "xyz"))
    touch(tmp_path, *(f"b/many/{label}/{number}.jpg" for label in "xy" for number in range(9)))
    touch(tmp_path, "docs/pages/1/index.html", "docs/pages/2/index.html", "a/1.jpg")
    assert [tuple(data) for data in find_nested_data(tmp_path)] == [
        (tmp_path / "b" / "many", 2, 18, ()),
        (tmp_path / "a" / "few", 3, 3, ()),
    ]


def test_junk_folders_are_ignored() -> None:
    assert select_channels({"train": True, "__MACOSX": True, ".git": True}, "photos") == {"train": "train"}


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        find_channels(tmp_path / "nowhere")


def test_tar_shards_make_a_channel(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/train-000000.tar", "test/test-000000.tar", "classes.txt")
    assert find_channels(root) == {name: root / name for name in ("train", "test")}


@pytest.mark.parametrize(
    ("name", "photo"), [("a.jpg", True), ("a.JPEG", True), ("a.avif", True), ("a.txt", False), ("jpg", False)]
)
def test_image_extensions_are_recognized(name: str, photo: bool) -> None:
    assert has_image_extension(Path(name)) is photo

"""A channel's folder → its classes and files, however it was made."""

from pathlib import Path

import pytest

from classifier.errors import DataError
from classifier.training.folders import check_same_classes, class_labels, list_channel, looks_like_photo


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("folder", "label", "class_name"),
    [
        ("069.French_bulldog", "069", "French_bulldog"),
        ("1.a", "1", "a"),
        ("n02085620-Chihuahua", "n02085620", "Chihuahua"),
        ("n02086240-Shih-Tzu", "n02086240", "Shih-Tzu"),
        ("t-shirt", "t-shirt", "t-shirt"),
        ("0", "0", "0"),
        ("069.", "069.", "069."),
        (".5", ".5", ".5"),
        ("n0208-dog", "n0208-dog", "n0208-dog"),
        ("v1.2 beta", "v1.2 beta", "v1.2 beta"),
        ("Hund Größe 犬", "Hund Größe 犬", "Hund Größe 犬"),
    ],
)
def test_a_folders_name_holds_a_label_and_a_class_name(folder: str, label: str, class_name: str) -> None:
    (item,) = class_labels([folder])
    assert (item.folder, item.label, item.class_name) == (folder, label, class_name)


@pytest.mark.parametrize("folders", [["1.0L_bottle", "1.5L_bottle"], ["069", "069.French_bulldog"]])
def test_labels_that_collide_are_plain_names_after_all(folders: list[str]) -> None:
    assert [(item.label, item.class_name) for item in class_labels(folders)] == [(name, name) for name in folders]


def test_logits_are_in_the_order_of_the_sorted_folders() -> None:
    assert [item.folder for item in class_labels(["b", "a", "10", "9", "B"])] == ["10", "9", "B", "a", "b"]


def test_files_are_listed_by_class_however_deep(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2.jpg", "cat/1.jpg", "dog/deep/er/3.PNG", "dog/no_extension")
    folder = list_channel("train", tmp_path)
    names = {label: [path.relative_to(tmp_path).as_posix() for path in paths] for label, paths in folder.files.items()}
    assert names == {"cat": ["cat/1.jpg", "cat/2.jpg"], "dog": ["dog/deep/er/3.PNG", "dog/no_extension"]}
    assert (folder.name, folder.root, folder.strays) == ("train", tmp_path, [])


HIDDEN = (".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/1.jpg")


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_behind_is_no_photo(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/deep/2.jpg", f"cat/{name}", f"cat/deep/{name}")
    folder = list_channel("train", tmp_path)
    assert [path.name for path in folder.files["cat"]] == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("name", [".git/config", "__MACOSX/cat/._1.jpg", ".ipynb_checkpoints/x.jpg", ".DS_Store"])
def test_a_hidden_folder_is_no_class(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", name)
    folder = list_channel("train", tmp_path)
    assert list(folder.files) == ["cat", "dog"]
    assert [path.name for path in folder.strays] == [name.split("/", maxsplit=1)[0]]


def test_files_beside_the_class_folders_are_strays(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "README.txt", "photo.jpg")
    assert [path.name for path in list_channel("train", tmp_path).strays] == ["README.txt", "photo.jpg"]


def test_an_empty_class_folder_is_a_class(tmp_path: Path) -> None:
    (touch(tmp_path, "cat/1.jpg") / "dog").mkdir()
    assert list_channel("train", tmp_path).files["dog"] == []


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    files = list_channel("train", tmp_path / "train").files
    assert [path.name for path in files["dog"]] == ["1.jpg", "2.jpg"]
    assert [path.name for path in files["cat"]] == ["2.jpg"]


def test_a_link_back_to_its_own_folder_is_gone_through_once(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    assert [path.name for path in list_channel("train", tmp_path).files["cat"]] == ["1.jpg"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^channel 'test': its folder {tmp_path / 'none'} does not exist$"):
        list_channel("test", tmp_path / "none")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    expected = f"^channel 'train': {tmp_path} holds no class folders: add one folder of photos for each class$"
    with pytest.raises(DataError, match=expected):
        list_channel("train", tmp_path)


def test_photos_without_class_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="holds photos but no class folders: put the photos of each class into a folder"
    ):
        list_channel("train", touch(tmp_path, "1.jpg", "2.jpg"))


@pytest.mark.parametrize(
    ("name", "photo"), [("a.jpg", True), ("a.JPEG", True), ("a.avif", True), ("a.txt", False), ("jpg", False)]
)
def test_a_photo_is_known_by_its_extension(name: str, photo: bool) -> None:
    assert looks_like_photo(Path(name)) is photo


def test_channels_with_the_same_classes_agree(tmp_path: Path) -> None:
    first = list_channel("train", touch(tmp_path / "train", "a/1.jpg", "b/1.jpg"))
    check_same_classes(first, list_channel("test", touch(tmp_path / "test", "b/1.jpg", "a/1.jpg")))


def test_channels_with_other_classes_say_what_differs(tmp_path: Path) -> None:
    first = list_channel("train", touch(tmp_path / "train", "a/1.jpg", *(f"{n}/1.jpg" for n in range(6))))
    second = list_channel("test", touch(tmp_path / "test", "a/1.jpg", "z/1.jpg"))
    with pytest.raises(DataError) as caught:
        check_same_classes(first, second)
    assert str(caught.value) == (
        "channels 'train' and 'test' hold different classes: '0', '1', '2', '3', '4' … only in 'train'; "
        "'z' only in 'test'; both need the same class folders"
    )

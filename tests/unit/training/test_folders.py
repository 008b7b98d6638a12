"""Class folders of a channel: names, files, links, and files that do not belong there."""

from pathlib import Path

import pytest

from classifier.errors import DataError
from classifier.training.folders import ChannelFolder, check_same_classes, class_labels, list_channel, nested_classes


def files_by_class(folder: ChannelFolder) -> dict[str, list[str]]:
    return {name: list(folder.files_of(label)) for label, name in enumerate(folder.classes)}


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
def test_folder_names_give_label_and_class_name(folder: str, label: str, class_name: str) -> None:
    (item,) = class_labels([folder])
    assert (item.folder, item.label, item.class_name) == (folder, label, class_name)


@pytest.mark.parametrize("folders", [["1.0L_bottle", "1.5L_bottle"], ["069", "069.French_bulldog"]])
def test_labels_that_collide_are_replaced_by_whole_names(folders: list[str]) -> None:
    assert [(item.label, item.class_name) for item in class_labels(folders)] == [(name, name) for name in folders]


def test_classes_are_in_the_order_of_the_sorted_folders() -> None:
    assert [item.folder for item in class_labels(["b", "a", "10", "9", "B"])] == ["10", "9", "B", "a", "b"]


def test_files_are_listed_by_class_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2.jpg", "cat/1.jpg", "dog/deep/er/3.PNG", "dog/no_extension")
    folder = list_channel("train", tmp_path)
    assert files_by_class(folder) == {
        "cat": ["cat/1.jpg", "cat/2.jpg"],
        "dog": ["dog/deep/er/3.PNG", "dog/no_extension"],
    }
    assert (folder.name, folder.root, folder.unexpected_files) == ("train", tmp_path, [])


JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/1.jpg")


@pytest.mark.parametrize("name", JUNK)
def test_junk_files_are_not_listed_as_photos(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/deep/2.jpg", f"cat/{name}", f"cat/deep/{name}")
    folder = list_channel("train", tmp_path)
    assert files_by_class(folder)["cat"] == ["cat/1.jpg", "cat/deep/2.jpg"]


@pytest.mark.parametrize("name", [".git/config", "__MACOSX/cat/._1.jpg", ".ipynb_checkpoints/x.jpg", ".DS_Store"])
def test_junk_folders_are_not_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", name)
    folder = list_channel("train", tmp_path)
    assert list(folder.classes) == ["cat", "dog"]
    assert [path.name for path in folder.unexpected_files] == [name.split("/", maxsplit=1)[0]]


def test_files_beside_class_folders_are_unexpected(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "README.txt", "photo.jpg")
    assert [path.name for path in list_channel("train", tmp_path).unexpected_files] == ["README.txt", "photo.jpg"]


def test_files_are_in_the_order_of_their_paths_parts(tmp_path: Path) -> None:
    touch(tmp_path, "a-b/1.jpg", "a/1.jpg", "a/x-y/1.jpg", "a/x/1.jpg", "a/x.jpg", "a/ä.jpg")
    names = list(list_channel("train", tmp_path).files)
    assert names == [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.jpg"))]
    assert names.index("a/x/1.jpg") < names.index("a/x-y/1.jpg")


def test_an_empty_class_folder_is_a_class(tmp_path: Path) -> None:
    (touch(tmp_path, "cat/1.jpg") / "dog").mkdir()
    assert files_by_class(list_channel("train", tmp_path))["dog"] == []


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    files = files_by_class(list_channel("train", tmp_path / "train"))
    assert files == {"dog": ["dog/1.jpg", "dog/deep/2.jpg"], "cat": ["cat/more/2.jpg"]}


def test_a_link_to_its_own_parent_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    assert files_by_class(list_channel("train", tmp_path)) == {"cat": ["cat/1.jpg"]}


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    expected = f"^channel 'train': {tmp_path} holds no class folders: add one folder of photos for each class$"
    with pytest.raises(DataError, match=expected):
        list_channel("train", tmp_path)


def test_photos_without_class_folders_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="holds photos but no class folders: put the photos of each class into a folder"
    ):
        list_channel("train", touch(tmp_path, "1.jpg", "2.jpg"))


def test_channels_with_the_same_classes_are_accepted(tmp_path: Path) -> None:
    first = list_channel("train", touch(tmp_path / "train", "a/1.jpg", "b/1.jpg"))
    check_same_classes(first, list_channel("test", touch(tmp_path / "test", "b/1.jpg", "a/1.jpg")))


def test_channels_with_different_classes_are_an_error_that_names_them(tmp_path: Path) -> None:
    first = list_channel("train", touch(tmp_path / "train", "a/1.jpg", *(f"{n}/1.jpg" for n in range(6))))
    second = list_channel("test", touch(tmp_path / "test", "a/1.jpg", "z/1.jpg"))
    with pytest.raises(DataError) as caught:
        check_same_classes(first, second)
    assert str(caught.value) == (
        "channels 'train' and 'test' hold different classes: '0', '1', '2', '3', '4' … only in 'train'; "
        "'z' only in 'test'; both need the same class folders"
    )


def test_a_whole_data_set_in_place_of_a_channel_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{label}/1.jpg" for split in ("train", "val") for label in "ab"))
    with pytest.raises(DataError, match=r"^channel 'train': .* holds the folders train, val, each with class "):
        list_channel("train", tmp_path)


def test_classes_whose_photos_are_all_in_subfolders_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/deep/2.jpg", "full/hat/3.jpg", "full/shoe/4.jpg", "full/README", "empty/x.txt")
    assert nested_classes(list_channel("train", tmp_path)) == ["full"]

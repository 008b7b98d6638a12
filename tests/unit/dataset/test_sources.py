"""Listings of every kind of source: the photos with their classes and splits."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from classifier.errors import DataError
from dataset.annotations import list_manifest, list_polyvore, list_table
from dataset.class_folders import list_class_folders
from dataset.listing import Listing, class_folder_name, read_label_names
from dataset.sources import Source, find_photos


def touch(folder: Path, *places: str) -> Path:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"")
    return folder


def described(listing: Listing) -> set[tuple[str, str, str | None]]:
    return {(photo.path, photo.label, photo.split) for photo in listing.photos}


class TestClassFolders:
    def test_class_folders(self, tmp_path: Path) -> None:
        listing = list_class_folders(touch(tmp_path, "cat/1.jpg", "dog/deep/2.jpg"))
        assert described(listing) == {("cat/1.jpg", "cat", None), ("dog/deep/2.jpg", "dog", None)}
        assert listing.splits == ()

    @pytest.mark.parametrize("name", ["valid", "val", "validation", "Validation", "dev"])
    def test_splits_by_any_of_their_names(self, tmp_path: Path, name: str) -> None:
        listing = list_class_folders(touch(tmp_path, "train/cat/1.jpg", f"{name}/cat/2.jpg", "test/cat/3.jpg"))
        assert listing.splits == ("train", "validation", "test")

    def test_a_wrapping_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "dogImages/train/069.French_bulldog/1.jpg", "dogImages/valid/069.French_bulldog/2.jpg")
        assert described(list_class_folders(tmp_path)) == {
            ("dogImages/train/069.French_bulldog/1.jpg", "069.French_bulldog", "train"),
            ("dogImages/valid/069.French_bulldog/2.jpg", "069.French_bulldog", "validation"),
        }

    def test_train_can_be_a_class(self, tmp_path: Path) -> None:
        listing = list_class_folders(touch(tmp_path, "train/1.jpg", "bus/2.jpg"))
        assert {photo.label for photo in listing.photos} == {"train", "bus"}

    def test_photos_outside_class_folders_are_reported(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/cat/1.jpg", "train/2.jpg", "test/cat/3.jpg", "4.jpg", "spare/5.jpg", "README.md", ".x")
        listing = list_class_folders(tmp_path)
        assert {(defect.kind, defect.path) for defect in listing.defects} == {
            ("misplaced", "train/2.jpg"),
            ("misplaced", "4.jpg"),
            ("misplaced", "spare/5.jpg"),
        }

    def test_two_folders_for_one_split_are_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg", "validation/cat/3.jpg")
        with pytest.raises(DataError, match="two folders for the same split"):
            list_class_folders(tmp_path)

    def test_splits_beside_other_folders_are_named(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"data/{split}/{label}/1.jpg" for split in ("train", "val") for label in "ab"), "demo/1.jpg")
        with pytest.raises(
            DataError, match=f"pass {tmp_path}/data, which holds train/, val/ with 4 photos in 2 class folders"
        ):
            list_class_folders(tmp_path)

    def test_class_folders_beside_other_folders_are_named(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"images/Images/{label}/1.jpg" for label in "abc"), "annotations/Annotation/a/1")
        with pytest.raises(
            DataError, match=f"did you mean {tmp_path}/images/Images, which holds 3 photos in 3 class folders"
        ):
            list_class_folders(tmp_path)

    def test_a_folder_in_an_archive_is_named_by_its_path_there(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for label in "ab":
                archive.writestr(f"images/Images/{label}/1.jpg", b"x")
            archive.writestr("README.md", b"x")
            archive.writestr("annotations/a/1", b"x")
        with pytest.raises(DataError, match=r"did you mean photos\.zip/images/Images, .* Extract the archive first\."):
            find_photos(Source(text=str(tmp_path / "photos.zip")), tmp_path / "work", print)

    def test_classes_whose_photos_are_all_in_subfolders_cause_a_warning(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{kind}/{label}/1.jpg" for kind in ("full", "crops") for label in "abc"), "cat/1.jpg")
        (warning,) = list_class_folders(tmp_path).warnings
        assert warning == (
            "all photos of 'crops', 'full' are in subfolders of the class folder, which count as one class; if those "
            f"are the classes, pass {tmp_path}/crops, which holds 3 photos in 3 class folders, or {tmp_path}/full, "
            "which holds 3 photos in 3 class folders"
        )
        assert list_class_folders(touch(tmp_path / "deep", "cat/1.jpg", "cat/more/2.jpg", "dog/3.jpg")).warnings == []

    @pytest.mark.parametrize(
        ("places", "message"), [(["1.jpg"], "holds photos but no class folders"), ([], "holds no class folders")]
    )
    def test_no_class_folders_is_an_error(self, tmp_path: Path, places: list[str], message: str) -> None:
        with pytest.raises(DataError, match=message):
            list_class_folders(touch(tmp_path, *places))

    def test_a_link_to_a_parent_folder_is_not_followed(self, tmp_path: Path) -> None:
        touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
        (tmp_path / "cat" / "all").symlink_to(tmp_path)
        assert len(list_class_folders(tmp_path).photos) == 2


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "path,label\na/1.jpg,cat\n2.jpg,dog\n",
            "label;image\ncat;a/1.jpg\ndog;2.jpg\n",
            "a/1.jpg,cat\n2.jpg,dog\n",
            '\ufeffid,File_Name,Class,size\n7,a/1.jpg,cat,3\n8,"2.jpg",dog,4\n\n',
        ],
    )
    def test_columns_by_name_or_by_position(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "photos.csv").write_text(text, encoding="utf-8")
        listing = list_table(tmp_path / "photos.csv", None, {})
        assert described(listing) == {("a/1.jpg", "cat", None), ("2.jpg", "dog", None)}
        assert listing.root == tmp_path

    def test_a_column_of_splits(self, tmp_path: Path) -> None:
        (tmp_path / "photos.csv").write_text("path,label,split\n1.jpg,cat,train\n2.jpg,cat,val\n")
        assert list_table(tmp_path / "photos.csv", None, {}).splits == ("train", "validation")

    def test_the_built_in_algorithms_list(self, tmp_path: Path) -> None:
        (tmp_path / "train.lst").write_text("5\t1\tdog/1.jpg\n1000\t0.000000\tcat/2.jpg\n")
        listing = list_table(tmp_path / "train.lst", tmp_path, {"0": "cat"})
        assert described(listing) == {("dog/1.jpg", "1", None), ("cat/2.jpg", "0.cat", None)}

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            (
                "a.csv",
                "path,lable\n1.jpg,cat\n",
                r"no column for the label among 'path', 'lable' \(did you mean 'label'\?\)",
            ),
            ("a.csv", "path,label\n1.jpg\n", "line 2: too few columns"),
            ("a.csv", "path,label\n1.jpg,\n", "line 2: label is empty"),
            ("a.csv", "path,label,split\n1.jpg,cat,holdout\n", "line 2: unknown split 'holdout'"),
            ("a.csv", "path,label\n", "names no photos"),
            ("a.lst", "1\t0\t1\tcat.jpg\n", "line 1: several labels for one photo"),
            ("a.lst", "1 0 cat.jpg\n", "line 1: should be index, label and path"),
        ],
    )
    def test_errors_name_the_line_and_the_fault(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            list_table(tmp_path / name, None, {})

    def test_a_table_in_another_encoding_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes("path,label\n1.jpg,caf\xe9\n".encode("latin-1"))
        with pytest.raises(DataError, match="can't be read as a table in UTF-8"):
            list_table(tmp_path / "a.csv", None, {})


def manifest(folder: Path, *records: Mapping[str, object]) -> Path:
    path = folder / "output.manifest"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


LABELLED = {"animal": 0, "animal-metadata": {"class-name": "cat", "type": "groundtruth/image-classification"}}
OUTFIT = {"set_id": "119704139", "items": [{"index": 1, "categoryid": 3}, {"index": 4, "categoryid": 41}]}


class TestManifests:
    def test_s3_addresses_are_looked_up_below_the_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "pets/a/1.jpg", "pets/b/1.jpg", "1.jpg")
        path = manifest(
            tmp_path,
            {"source-ref": "s3://bucket/deep/pets/a/1.jpg", **LABELLED},
            {"source-ref": "s3://bucket/deep/pets/b/1.jpg", **LABELLED},
        )
        listing = list_manifest(path, tmp_path, {}, None)
        assert described(listing) == {("pets/a/1.jpg", "cat", None), ("pets/b/1.jpg", "cat", None)}

    def test_local_paths_and_plain_labels(self, tmp_path: Path) -> None:
        path = manifest(tmp_path, {"source-ref": "1.jpg", "class": "3"}, {"source-ref": "2.jpg", "class": 4.0})
        listing = list_manifest(path, None, {"3": "dress"}, None)
        assert described(listing) == {("1.jpg", "3.dress", None), ("2.jpg", "4", None)}

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({"source-ref": "1.jpg", "a": 1, "b": 2}, r"can't tell which attribute is the label \(a, b\)"),
            (
                {"source-ref": "1.jpg", "a": [1, 2], "a-metadata": {"type": "multi"}},
                "'a' is multi; only labels of one class",
            ),
            ({"source": "text"}, "should be a JSON object with a source-ref"),
        ],
    )
    def test_anything_but_a_single_label_is_an_error(
        self, tmp_path: Path, record: Mapping[str, object], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            list_manifest(manifest(tmp_path, record), None, {}, None)

    def test_an_unlabelled_line_is_an_error(self, tmp_path: Path) -> None:
        path = manifest(tmp_path, {"source-ref": "1.jpg", **LABELLED}, {"source-ref": "2.jpg"})
        with pytest.raises(DataError, match="line 2 has no 'animal'"):
            list_manifest(path, None, {}, None)


class TestPolyvore:
    def test_one_file(self, tmp_path: Path) -> None:
        touch(tmp_path, "images/119704139/1.jpg")
        (tmp_path / "train_no_dup.json").write_text(json.dumps([OUTFIT]))
        (tmp_path / "category_id.txt").write_text("3 Dresses\n41 Shoes\n78 Food & Drink\n")
        listing = list_polyvore(tmp_path / "train_no_dup.json", None, {})
        assert listing.root == tmp_path / "images"
        assert described(listing) == {
            ("119704139/1.jpg", "3.Dresses", None),
            ("119704139/4.jpg", "41.Shoes", None),
        }

    def test_a_folder_of_all_three(self, tmp_path: Path) -> None:
        touch(tmp_path, "images/x")
        for name in ("train", "valid", "test"):
            (tmp_path / f"{name}_no_dup.json").write_text(json.dumps([OUTFIT]))
        found = find_photos(Source(text=str(tmp_path)), tmp_path / "work", print)
        assert found.listing.splits == ("train", "validation", "test")
        assert not found.is_temporary

    @pytest.mark.parametrize("text", ['{"a": 1}', '[{"set_id": 1}]', "[1]"])
    def test_another_json_is_an_error(self, tmp_path: Path, text: str) -> None:
        touch(tmp_path, "images/x")
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match="neither an augmented manifest nor Polyvore's"):
            list_polyvore(tmp_path / "a.json", None, {})


@pytest.mark.parametrize("text", ['{"3": "dress", "4": "hat"}', '{"dress": 3, "hat": 4}', "3 dress\n4: hat\n"])
def test_label_names_in_any_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "label.json").write_text(text)
    assert read_label_names(tmp_path / "label.json") == {"3": "dress", "4": "hat"}


@pytest.mark.parametrize(
    ("label", "folder"), [("cat", "cat"), ("Tops / Shirts", "Tops - Shirts"), ("../x", "-x"), (" . ", "")]
)
def test_a_label_becomes_a_folder_name(label: str, folder: str) -> None:
    assert class_folder_name(label) == folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none", "no such file or folder"),
        ("ftp://host/photos.zip", "only http and https are supported, not ftp"),
        ("s3://bucket/photos.zip", "copy the file here first with `aws s3 cp`"),
        ("file:///etc/passwd", "only http and https are supported, not file"),
    ],
)
def test_an_unsupported_source_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    text = text if "://" in text else str(tmp_path / text)
    with pytest.raises(DataError, match=message):
        find_photos(Source(text=text), tmp_path / "work", print)


def test_an_unsupported_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("hello")
    with pytest.raises(DataError, match="is not a supported source"):
        find_photos(Source(text=str(tmp_path / "photos.txt")), tmp_path / "work", print)

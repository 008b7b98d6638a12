"""Listings from annotation files: CSV and ``.lst`` tables, SageMaker augmented manifests, Polyvore's outfits.

A SageMaker labelling job for image classification writes one JSON line per photo:
``{"source-ref": "s3://bucket/photos/1.jpg", "animal": 0, "animal-metadata": {"class-name": "dog", …}}``

Polyvore's files hold outfits: each a ``set_id``, and ``items`` with ``index`` and ``categoryid``. The photo of an item
is ``images/<set_id>/<index>.jpg``.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from classifier.contract.channels import has_image_extension, photo_channel
from classifier.errors import DataError, did_you_mean
from dataset.listing import Listing, Photo, class_folder_name, name_label, read_label_names

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "img", "filename", "file_name", "file", "filepath", "image_name"),
    "label": ("label", "class", "category", "class_name", "target", "breed"),
    "split": ("split", "set", "subset", "partition"),
}
_METADATA = "-metadata"
_POLYVORE_FILES = {"train": "train_no_dup.json", "validation": "valid_no_dup.json", "test": "test_no_dup.json"}
_POLYVORE_IMAGES = ("images", "polyvore-images")
_POLYVORE_NAMES = "category_id.txt"

_Row = tuple[int, str, str, str]  # line number, path, label, split


def list_table(table: Path, images: Path | None, names: Mapping[str, str]) -> Listing:
    """List ``path,label[,split]`` rows, with or without a header, or ``index TAB label TAB path`` lines of an ``.lst``.

    Args:
        images: the folder that paths are relative to, by default the table's.
        names: names by label.

    Raises:
        DataError: the columns are not found, a row has no path, no label or several, or a split is unknown.
    """
    root = images or table.parent
    listing = Listing(root)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = _lst_rows(table, file) if table.suffix.lower() == ".lst" else _csv_rows(table, file)
            for number, path, label, split in rows:
                listing.photos.append(_photo(table, number, path, label, split, names))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as a table in UTF-8: {error}") from None
    if not listing.photos:
        raise DataError(f"{table} names no photos")
    return listing


def _photo(table: Path, number: int, path: str, label: str, split: str, names: Mapping[str, str]) -> Photo:
    folder = class_folder_name(name_label(label, names))
    if not path or not folder:
        raise DataError(f"{table}, line {number}: {'label' if path else 'path'} is empty")
    if split and photo_channel(split) is None:
        raise DataError(f"{table}, line {number}: unknown split {split!r}; use train, validation or test")
    return Photo(path, folder, photo_channel(split) if split else None)


def _lst_rows(table: Path, lines: Iterator[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        cells = line.rstrip("\r\n").split("\t")
        if cells == [""]:
            continue
        if len(cells) > 3:
            raise DataError(f"{table}, line {number}: several labels for one photo are not supported")
        if len(cells) < 3:
            raise DataError(f"{table}, line {number}: should be index, label and path, separated by tabs")
        yield number, cells[2], _integral(cells[1]), ""


def _integral(label: str) -> str:
    """Drop the fraction of ``4.000000``, as im2rec writes it."""
    try:
        return str(int(float(label))) if float(label) == int(float(label)) else label
    except (ValueError, OverflowError):
        return label


def _csv_rows(table: Path, file: Iterator[str]) -> Iterator[_Row]:
    first = next(file, "")
    delimiter = _delimiter(first)
    header = next(csv.reader([first], delimiter=delimiter), [])
    columns = _find_columns(table, header)
    if columns is None:
        columns = (0, 1, None)
        yield 1, *_cells(table, 1, header, columns)
    for number, row in enumerate(csv.reader(file, delimiter=delimiter), 2):
        if row:
            yield number, *_cells(table, number, row, columns)


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _find_columns(table: Path, header: Sequence[str]) -> tuple[int, int, int | None] | None:
    """Return the indices of path, label and split; None if the first row is a photo instead of a header."""
    lowered = [name.strip().lower() for name in header]
    found = {
        column: next((lowered.index(name) for name in names if name in lowered), None)
        for column, names in _COLUMNS.items()
    }
    path, label, split = found["path"], found["label"], found["split"]
    if path is not None and label is not None:
        return path, label, split
    if len(header) == 2 and has_image_extension(header[0]):
        return None
    missing = "path" if path is None else "label"
    hint = next(
        (did_you_mean(name, _COLUMNS[missing]) for name in lowered if did_you_mean(name, _COLUMNS[missing])), ""
    )
    raise DataError(
        f"{table}: no column for the {missing} among {', '.join(map(repr, header))}{hint}; "
        f"name it {' or '.join(map(repr, _COLUMNS[missing][:2]))}"
    )


def _cells(table: Path, number: int, row: Sequence[str], columns: tuple[int, int, int | None]) -> tuple[str, str, str]:
    path, label, split = columns
    if len(row) <= max(path, label):
        raise DataError(f"{table}, line {number}: too few columns")
    split_cell = row[split].strip() if split is not None and split < len(row) else ""
    return row[path].strip(), row[label].strip(), split_cell


def is_manifest(path: Path) -> bool:
    """Whether the first line is a JSON object that refers to a source."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(file.readline(1 << 20))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and ("source-ref" in first or "source" in first)


def list_manifest(path: Path, images: Path | None, names: Mapping[str, str], attribute: str | None) -> Listing:
    """List the photos of an augmented manifest.

    Args:
        images: the folder of the photos, by default the manifest's; S3 addresses are looked up below it by the longest
            part of their key that exists there.
        names: names by label, which take precedence over the manifest's own.
        attribute: the attribute that holds the label; by default the only one with metadata.

    Raises:
        DataError: a line is not JSON, or has no label, several, or one that is not a single class.
    """
    root = images or path.parent
    listing = Listing(root)
    paths = _LocalPaths(root)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                record = _parse_record(where, line)
                attribute = attribute or _find_attribute(where, record)
                label = class_folder_name(_label(where, record, attribute, names))
                listing.photos.append(Photo(paths.find(record["source-ref"]), label))
    return listing


def _parse_record(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("source-ref"), str):
        raise DataError(f"{where} should be a JSON object with a source-ref; inline sources are not supported")
    return record


def _find_attribute(where: str, record: Mapping[str, Any]) -> str:
    """Return the only attribute that has metadata, or else the only one beside ``source-ref``."""
    others = [name for name in record if name != "source-ref" and not name.endswith(_METADATA)]
    found = [name for name in others if name + _METADATA in record] or others
    if len(found) != 1:
        among = ", ".join(found) or "none"
        raise DataError(f"{where}: can't tell which attribute is the label ({among}): choose with --label-attribute")
    return found[0]


def _label(where: str, record: Mapping[str, Any], attribute: str, names: Mapping[str, str]) -> str:
    if attribute not in record:
        raise DataError(f"{where} has no {attribute!r}: the photo was not labelled; remove the line")
    value, metadata = record[attribute], record.get(attribute + _METADATA) or {}
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        kind = metadata.get("type", "not one class")
        raise DataError(f"{where}: {attribute!r} is {kind}; only labels of one class per photo are supported")
    plain = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return (names.get(plain) and name_label(plain, names)) or str(metadata.get("class-name") or plain)


class _LocalPaths:
    """Maps S3 addresses to paths below a folder, without the leading parts that the first file found lacks there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._num_dropped: int | None = None

    def find(self, reference: str) -> str:
        if not reference.startswith("s3://"):
            return reference.removeprefix("file://")
        parts = PurePosixPath(reference.removeprefix("s3://")).parts
        if self._num_dropped is None:
            self._num_dropped = next((num for num in range(len(parts)) if self._exists(parts[num:])), None)
        return os.path.join(*parts[min(self._num_dropped or 0, len(parts) - 1) :])  # noqa: PTH118

    def _exists(self, parts: tuple[str, ...]) -> bool:
        return ".." not in parts and self._root.joinpath(*parts).is_file()


def is_polyvore(folder: Path) -> bool:
    """Whether a folder holds Polyvore's JSON files."""
    return (folder / _POLYVORE_FILES["train"]).is_file()


def list_polyvore(source: Path, images: Path | None, names: Mapping[str, str]) -> Listing:
    """List the items of one JSON of outfits, or of a folder that holds a JSON for each split.

    Args:
        images: the folder of the photos, by default ``images/`` or ``polyvore-images/`` beside the JSON.
        names: names by category, by default those of ``category_id.txt`` beside the JSON.

    Raises:
        DataError: the file is not such a JSON, or there is no folder of images.
    """
    folder = source if source.is_dir() else source.parent
    listing = Listing(images or _find_images(folder))
    if not names and (folder / _POLYVORE_NAMES).is_file():
        names = read_label_names(folder / _POLYVORE_NAMES)
    for split, file in _polyvore_files(source):
        for path, category in _read_items(file):
            listing.photos.append(Photo(path, class_folder_name(name_label(category, names)), split))
    return listing


def _polyvore_files(source: Path) -> list[tuple[str | None, Path]]:
    if source.is_file():
        return [(None, source)]
    return [(split, source / name) for split, name in _POLYVORE_FILES.items() if (source / name).is_file()]


def _find_images(folder: Path) -> Path:
    for name in _POLYVORE_IMAGES:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(f"{folder} has no folder {' or '.join(_POLYVORE_IMAGES)}: pass the photos' folder with --images")


def _read_items(file: Path) -> Iterator[tuple[str, str]]:
    try:
        outfits = json.loads(file.read_text(encoding="utf-8"))
        for outfit in outfits:
            for item in outfit["items"]:
                yield f"{outfit['set_id']}/{item['index']}.jpg", str(item["categoryid"])
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    except (KeyError, TypeError):
        raise DataError(
            f"{file} is neither an augmented manifest nor Polyvore's list of outfits with set_id and items"
        ) from None

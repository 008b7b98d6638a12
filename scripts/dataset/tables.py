"""A CSV of paths and labels, or the built-in algorithm's ``.lst``, → a listing."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from classifier.errors import DataError, did_you_mean
from classifier.vision.images import EXTENSIONS
from dataset.labels import label_folder
from dataset.listing import Listing, Photo, class_folder, split_name

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "img", "filename", "file_name", "file", "filepath", "image_name"),
    "label": ("label", "class", "category", "class_name", "target", "breed"),
    "split": ("split", "set", "subset", "partition"),
}
_Row = tuple[int, str, str, str]  # the line's number, path, label, split


def list_table(table: Path, images: Path | None, names: Mapping[str, str]) -> Listing:
    """``path,label[,split]`` with or without a header, any delimiter; or ``index TAB label TAB path``.

    Paths start at ``images``, or where the table lies.

    Raises:
        DataError: no such columns, a row without a label, several labels for one photo, or an unknown split.
    """
    root = images or table.parent
    listing = Listing(root)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = _lst_rows(table, file) if table.suffix.lower() == ".lst" else _csv_rows(table, file)
            for number, place, label, split in rows:
                listing.photos.append(_photo(table, number, place, label, split, names))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as a table in UTF-8: {error}") from None
    if not listing.photos:
        raise DataError(f"{table} names no photos")
    return listing


def _photo(table: Path, number: int, place: str, label: str, split: str, names: Mapping[str, str]) -> Photo:
    folder = class_folder(label_folder(label, names))
    if not place or not folder:
        raise DataError(
            f"{table}, line {number}: needs a path and a label, and {'label' if place else 'path'} is empty"
        )
    if split and split_name(split) is None:
        raise DataError(f"{table}, line {number}: unknown split {split!r}; use train, validation or test")
    return Photo(place, folder, split_name(split) if split else None)


def _lst_rows(table: Path, lines: Iterator[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        cells = line.rstrip("\r\n").split("\t")
        if cells == [""]:
            continue
        if len(cells) > 3:
            raise DataError(f"{table}, line {number}: several labels for one photo; only single-label lists are read")
        if len(cells) < 3:
            raise DataError(f"{table}, line {number}: should be index, label and path, with tabs between them")
        yield number, cells[2], _whole(cells[1]), ""


def _whole(label: str) -> str:
    """im2rec writes ``4.000000``."""
    try:
        return str(int(float(label))) if float(label) == int(float(label)) else label
    except (ValueError, OverflowError):
        return label


def _csv_rows(table: Path, file: Iterator[str]) -> Iterator[_Row]:
    first = next(file, "")
    dialect = _delimiter(first)
    header = next(csv.reader([first], delimiter=dialect), [])
    places = _columns(table, header)
    if places is None:
        yield 1, *_cells(table, 1, header, (0, 1, None))
        places = (0, 1, None)
    for number, row in enumerate(csv.reader(file, delimiter=dialect), 2):
        if row:
            yield number, *_cells(table, number, row, places)


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _columns(table: Path, header: Sequence[str]) -> tuple[int, int, int | None] | None:
    """Where path, label and split stand; None when the first row is a photo's already."""
    lowered = [name.strip().lower() for name in header]
    found = {
        column: next((lowered.index(name) for name in names if name in lowered), None)
        for column, names in _COLUMNS.items()
    }
    path, label, split = found["path"], found["label"], found["split"]
    if path is not None and label is not None:
        return path, label, split
    if len(header) == 2 and Path(header[0]).suffix.lower() in EXTENSIONS:
        return None
    lacking = "path" if path is None else "label"
    hint = next(
        (did_you_mean(name, _COLUMNS[lacking]) for name in lowered if did_you_mean(name, _COLUMNS[lacking])), ""
    )
    raise DataError(
        f"{table}: no column for the {lacking} among {', '.join(map(repr, header))}{hint}; "
        f"name it {' or '.join(map(repr, _COLUMNS[lacking][:2]))}"
    )


def _cells(table: Path, number: int, row: Sequence[str], places: tuple[int, int, int | None]) -> tuple[str, str, str]:
    path, label, split = places
    if len(row) <= max(path, label):
        raise DataError(f"{table}, line {number}: too few columns")
    chosen = row[split].strip() if split is not None and split < len(row) else ""
    return row[path].strip(), row[label].strip(), chosen

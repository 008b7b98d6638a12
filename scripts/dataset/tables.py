"""Listings of tables: a CSV of paths and labels, or the ``.lst`` of SageMaker's built-in algorithm."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from classifier.errors import DataError, did_you_mean
from classifier.vision.images import EXTENSIONS
from dataset.listing import Listing, Photo, class_folder_name, name_label, split_name

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "img", "filename", "file_name", "file", "filepath", "image_name"),
    "label": ("label", "class", "category", "class_name", "target", "breed"),
    "split": ("split", "set", "subset", "partition"),
}
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
    if split and split_name(split) is None:
        raise DataError(f"{table}, line {number}: unknown split {split!r}; use train, validation or test")
    return Photo(path, folder, split_name(split) if split else None)


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
    if len(header) == 2 and Path(header[0]).suffix.lower() in EXTENSIONS:
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

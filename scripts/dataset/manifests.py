"""A SageMaker augmented manifest (JSON lines with ``source-ref`` and a label) → a listing.

A labelling job for image classification writes, a line a photo:
``{"source-ref": "s3://bucket/photos/1.jpg", "animal": 0, "animal-metadata": {"class-name": "dog", …}}``
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from classifier.errors import DataError
from dataset.labels import label_folder, read_names
from dataset.listing import Listing, Photo, class_folder

_METADATA = "-metadata"


def is_manifest(path: Path) -> bool:
    """Whether the first line is a JSON object that refers to a source."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(file.readline(1 << 20))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and ("source-ref" in first or "source" in first)


def list_manifest(path: Path, images: Path | None, names: Mapping[str, str], attribute: str | None) -> Listing:
    """Local paths, or S3 addresses of photos that lie under ``images`` in the same order of folders.

    Raises:
        DataError: a line that is no JSON, no label or several, or a kind of label that is not one class.
    """
    root = images or path.parent
    listing = Listing(root)
    places = _Places(root)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                record = _record(where, line)
                attribute = attribute or _find_attribute(where, record)
                label = class_folder(_label(where, record, attribute, names))
                listing.photos.append(Photo(places.find(record["source-ref"]), label))
    return listing


def _record(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("source-ref"), str):
        raise DataError(f"{where} should be a JSON object with a source-ref; inline sources are not read")
    return record


def _find_attribute(where: str, record: Mapping[str, Any]) -> str:
    """The one attribute that has metadata beside it, or else the one that is not ``source-ref``."""
    others = [name for name in record if name != "source-ref" and not name.endswith(_METADATA)]
    found = [name for name in others if name + _METADATA in record] or others
    if len(found) != 1:
        among = ", ".join(found) or "none"
        raise DataError(f"{where}: which attribute is the label? It has {among}: choose with --label-attribute")
    return found[0]


def _label(where: str, record: Mapping[str, Any], attribute: str, names: Mapping[str, str]) -> str:
    if attribute not in record:
        raise DataError(f"{where} has no {attribute!r}: the photo was not labelled; take the line out")
    value, metadata = record[attribute], record.get(attribute + _METADATA) or {}
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        kind = metadata.get("type", "not one class")
        raise DataError(f"{where}: {attribute!r} is {kind}; only labels of one class a photo are read")
    plain = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return (names.get(plain) and label_folder(plain, names)) or str(metadata.get("class-name") or plain)


class _Places:
    """S3 addresses → paths below the images' folder. How many leading folders to drop is found once, and then holds."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._dropped: int | None = None

    def find(self, reference: str) -> str:
        if not reference.startswith("s3://"):
            return reference.removeprefix("file://")
        parts = PurePosixPath(reference.removeprefix("s3://")).parts
        if self._dropped is None:
            self._dropped = next((num for num in range(len(parts)) if self._exists(parts[num:])), None)
        return os.path.join(*parts[min(self._dropped or 0, len(parts) - 1) :])  # noqa: PTH118

    def _exists(self, parts: tuple[str, ...]) -> bool:
        return ".." not in parts and self._root.joinpath(*parts).is_file()


_FILES = {"train": "train_no_dup.json", "validation": "valid_no_dup.json", "test": "test_no_dup.json"}
_IMAGES = ("images", "polyvore-images")
_NAMES = "category_id.txt"


def holds_outfits(folder: Path) -> bool:
    return (folder / _FILES["train"]).is_file()


def list_outfits(source: Path, images: Path | None, names: Mapping[str, str]) -> Listing:
    """One JSON of outfits, or a folder with all three.

    Raises:
        DataError: not such a JSON, or no folder of images.
    """
    folder = source if source.is_dir() else source.parent
    listing = Listing(images or _find_images(folder))
    names = names or (read_names(folder / _NAMES) if (folder / _NAMES).is_file() else {})
    for split, file in _files(source):
        for place, category in _items(file):
            listing.photos.append(Photo(place, class_folder(label_folder(category, names)), split))
    return listing


def _files(source: Path) -> list[tuple[str | None, Path]]:
    if source.is_file():
        return [(None, source)]
    return [(split, source / name) for split, name in _FILES.items() if (source / name).is_file()]


def _find_images(folder: Path) -> Path:
    for name in _IMAGES:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(f"{folder} has no folder {' or '.join(_IMAGES)}: say with --images where the photos are")


def _items(file: Path) -> Iterator[tuple[str, str]]:
    try:
        outfits = json.loads(file.read_text(encoding="utf-8"))
        yield from (_item(outfit, item) for outfit in outfits for item in outfit["items"])
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    except (KeyError, TypeError):
        raise DataError(
            f"{file} is neither an augmented manifest nor Polyvore's list of outfits with set_id and items"
        ) from None


def _item(outfit: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[str, str]:
    return f"{outfit['set_id']}/{item['index']}.jpg", str(item["categoryid"])

"""Listings of JSON sources: SageMaker augmented manifests, and Polyvore's outfits.

A SageMaker labelling job for image classification writes one JSON line per photo:
``{"source-ref": "s3://bucket/photos/1.jpg", "animal": 0, "animal-metadata": {"class-name": "dog", …}}``

Polyvore's files hold outfits: each a ``set_id``, and ``items`` with ``index`` and ``categoryid``. The photo of an item
is ``images/<set_id>/<index>.jpg``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from classifier.errors import DataError
from dataset.listing import Listing, Photo, class_folder_name, name_label, read_label_names

_METADATA = "-metadata"
_POLYVORE_FILES = {"train": "train_no_dup.json", "validation": "valid_no_dup.json", "test": "test_no_dup.json"}
_POLYVORE_IMAGES = ("images", "polyvore-images")
_POLYVORE_NAMES = "category_id.txt"


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

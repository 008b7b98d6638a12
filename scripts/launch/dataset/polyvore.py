"""Polyvore's outfits (``train_no_dup.json`` and its fellows) and their images' folder → a listing.

The format is that of the public repository polyvore-dataset: a list of outfits, each with ``set_id`` and ``items``; an
item's ``index`` names its photo, ``<set_id>/<index>.jpg``, and its ``categoryid`` its class.
``category_id.txt`` names the categories.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from classifier.errors import DataError
from launch.dataset.labels import label_folder, read_names
from launch.dataset.listing import Listing, Photo, class_folder

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

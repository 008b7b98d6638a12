"""The photos that a source names: where each lies, its class and, where the source has its own, its split."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dataset.defects import Defect

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


class Photo(NamedTuple):
    """A file to look at. ``place`` is its path below the listing's root, and its name in the report."""

    place: str
    label: str
    split: str | None = None


@dataclass
class Listing:
    """All that a source names. What is no photo of any class is among ``defects`` already."""

    root: Path
    photos: list[Photo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def path(self, photo: Photo) -> str:
        return os.path.join(self.root, photo.place)  # noqa: PTH118 (a hundred thousand times)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the source came with; none when they are still to be made."""
        present = {photo.split for photo in self.photos}
        return tuple(name for name in SPLITS if name in present)


def split_name(name: str) -> str | None:
    """``valid``, ``val``, ``Validation`` → ``validation``; None for a name that is no split's."""
    return _SPLIT_NAMES.get(name.lower())


def class_folder(label: str) -> str:
    """A label → a name that a folder can have and S3 takes as it is."""
    name = re.sub(r"[/\\\x00-\x1f\x7f]+", "-", label.strip()).lstrip(".").strip()
    # A file name holds 255 bytes.
    return name.encode()[:200].decode(errors="ignore")


def is_litter(name: str) -> bool:
    """What operating systems leave in folders; nobody misses it."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def without_litter(entries: Iterable[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    return sorted((entry for entry in entries if not is_litter(entry.name)), key=lambda entry: entry.name)

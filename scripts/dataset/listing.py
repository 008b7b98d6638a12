"""The photos that a source lists, with their labels and splits."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from classifier.contract.channels import PHOTO_CHANNELS
from classifier.errors import DataError
from dataset.defects import Defect

SPLITS = PHOTO_CHANNELS


class Photo(NamedTuple):
    """A listed file. ``path`` is relative to the listing's root; reports name the photo by it."""

    path: str
    label: str
    split: str | None = None


@dataclass
class Listing:
    """Everything that a source lists; files that are no photo of any class are among ``defects`` already.

    Attributes:
        warnings: about the layout of the source, for the log.
    """

    root: Path
    photos: list[Photo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def absolute_path(self, photo: Photo) -> str:
        """Return the path of a photo's file."""
        return os.path.join(self.root, photo.path)  # noqa: PTH118 (called a hundred thousand times)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the source has of its own; empty if it has none."""
        present = {photo.split for photo in self.photos}
        return tuple(name for name in SPLITS if name in present)


def class_folder_name(label: str) -> str:
    """Make a label a valid folder name and S3 key part; empty if nothing of it is left."""
    name = re.sub(r"[/\\\x00-\x1f\x7f]+", "-", label.strip()).lstrip(".").strip()
    # A file name holds 255 bytes.
    return name.encode()[:200].decode(errors="ignore")


def name_label(label: str, names: Mapping[str, str]) -> str:
    """Add a label's name to it: ``3`` named ``Dresses`` becomes ``3.Dresses``, which training splits again."""
    name = names.get(label, "")
    return f"{label}.{name}" if name and label.isdecimal() else name or label


def read_label_names(path: Path) -> dict[str, str]:
    """Read names by label: ``{"0": "dress"}``, ``{"dress": 0}``, ``["dress", …]``, or lines such as ``3 Dresses``.

    Raises:
        DataError: the file can't be read, or has none of these forms.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--labels {path}: {getattr(error, 'strerror', None) or error}") from None
    return _names_from_json(path, text) if text.lstrip().startswith(("{", "[")) else _names_from_lines(path, text)


def _names_from_json(path: Path, text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"--labels {path} is not JSON: {error}") from None
    pairs = list(enumerate(content) if isinstance(content, list) else content.items())
    if pairs and all(isinstance(value, int) for _, value in pairs):
        pairs = [(value, name) for name, value in pairs]
    if not all(isinstance(name, str) for _, name in pairs):
        raise DataError(f"--labels {path} should map each label to its name")
    return {str(label): str(name) for label, name in pairs}


def _names_from_lines(path: Path, text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            match = re.match(r"\s*(\S+?)[\s,:=]+(.+)", line)
            if match is None:
                raise DataError(f"--labels {path}, line {number}: should be a label and its name")
            names[match[1]] = match[2].strip()
    return names

"""A channel's folder → its classes and the files of each."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import DataError
from classifier.vision.images import EXTENSIONS
from classifier.vision.manifest import ClassLabel

# 069.French_bulldog; n02085620-Chihuahua (a WordNet number). Any other name is label and class name at once.
_LABELLED_NAME = re.compile(r"(?P<label>\d+)\.(?P<name>.+)|(?P<wordnet>n\d{8})-(?P<wordnet_name>.+)")


@dataclass(frozen=True)
class ChannelFolder:
    """What lies in a channel: files by class folder, and what belongs to no class."""

    name: str
    root: Path
    files: dict[str, list[Path]]
    strays: list[Path]


def list_channel(name: str, root: Path) -> ChannelFolder:
    """List a channel once, class folder by class folder; slow on FastFile, so nothing is listed twice.

    Raises:
        DataError: the folder is missing, empty, or holds no class folders.
    """
    if not root.is_dir():
        raise DataError(f"channel {name!r}: its folder {root} does not exist")
    with os.scandir(root) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    folders = [entry for entry in top if entry.is_dir() and not _is_hidden(entry.name)]
    strays = [Path(entry.path) for entry in top if entry not in folders]
    if not folders:
        raise DataError(f"channel {name!r}: {_explain_no_folders(root, strays)}")
    files: dict[str, list[Path]] = {}
    for folder in folders:
        found = sorted(_walk(folder.path))
        files[folder.name] = [path for path in found if not _is_hidden(path.name)]
        strays += [path for path in found if _is_hidden(path.name)]
    return ChannelFolder(name, root, files, strays)


def _walk(folder: str) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name) and not _leads_back(Path(parent, name))]
        yield from (Path(parent, name) for name in names)


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in itself, which would be followed forever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _explain_no_folders(root: Path, strays: list[Path]) -> str:
    if any(looks_like_photo(path) for path in strays):
        return f"{root} holds photos but no class folders: put the photos of each class into a folder of its own"
    return f"{root} holds no class folders: add one folder of photos for each class"


def looks_like_photo(path: Path) -> bool:
    """Whether the name says that a file is a photo; the content decides whether it is one."""
    return path.suffix.lower() in EXTENSIONS


def class_labels(folders: Sequence[str]) -> tuple[ClassLabel, ...]:
    """Folder names → classes, in sorted order, which is the order of the logits.

    When two folders would share a label (``1.0L_bottle``, ``1.5L_bottle``), the names are plain after all.
    """
    classes = tuple(_parse_folder(folder) for folder in sorted(folders))
    if len({item.label for item in classes}) < len(classes):
        return tuple(ClassLabel(folder=item.folder, label=item.folder, class_name=item.folder) for item in classes)
    return classes


def _parse_folder(folder: str) -> ClassLabel:
    match = _LABELLED_NAME.fullmatch(folder)
    if match is None:
        return ClassLabel(folder=folder, label=folder, class_name=folder)
    label = match["label"] or match["wordnet"]
    return ClassLabel(folder=folder, label=label, class_name=match["name"] or match["wordnet_name"])


def check_same_classes(first: ChannelFolder, second: ChannelFolder) -> None:
    """
    Raises:
        DataError: the channels do not hold the same class folders.
    """
    differences = [
        f"{', '.join(map(repr, sorted(only)[:5]))}{' …' if len(only) > 5 else ''} only in {name!r}"
        for name, only in (
            (first.name, first.files.keys() - second.files.keys()),
            (second.name, second.files.keys() - first.files.keys()),
        )
        if only
    ]
    if differences:
        raise DataError(
            f"channels {first.name!r} and {second.name!r} hold different classes: {'; '.join(differences)}; "
            "both need the same class folders"
        )

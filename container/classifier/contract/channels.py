"""Channel names, the layout of a data folder, and which of its files are photos."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from classifier.errors import DataError

PHOTO_CHANNELS = ("train", "validation", "test")
CHANNELS = (*PHOTO_CHANNELS, "pretrained", "model")
# Names that published data sets give to their splits, in lower case.
_PHOTO_CHANNEL_BY_NAME = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
CLASSES_FILE = "classes.txt"  # of a channel of tar shards
# Folders that scripts/prepare_data.py writes beside the channels.
_PREPARED = ("report", "shards")

# File name suffixes that training, data preparation and the prediction client take for images, by Pillow's name of the
# format; the first is the one to write.
EXTENSIONS_BY_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),  # several JPEGs in one file, opened as JPEG
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "AVIF": (".avif",),
}
EXTENSIONS = frozenset(extension for extensions in EXTENSIONS_BY_FORMAT.values() for extension in extensions)

_MAX_DEPTH = 4  # of a data set in a folder of other things
_MAX_VISITED = 2000  # folders; a search for a hint must not take longer than the user waits
_MAX_NAMED = 3


def is_junk_file(name: str) -> bool:
    """Whether a file or folder is hidden or was created by an operating system (``.DS_Store``, ``Thumbs.db``, …)."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def has_image_extension(path: str | Path) -> bool:
    """Whether a file is named like a photo; whether it is one depends on its content."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122 (called a hundred thousand times)


def is_shard(path: str | Path) -> bool:
    """Whether a file is named like a tar shard of photos."""
    name = os.path.basename(path)  # noqa: PTH119 (also of S3 keys)
    return name.endswith(".tar") and not is_junk_file(name)


def photo_channel(name: str) -> str | None:
    """Return the photo channel that a folder or split of this name is, such as ``val`` or ``Training``, or None."""
    return _PHOTO_CHANNEL_BY_NAME.get(name.lower())


def find_channels(folder: Path) -> dict[str, Path]:
    """Map channel names to folders: those of photo channels by any of their names, or class folders alone.

    Raises:
        DataError: the folder does not exist, or :func:`select_channels` or :func:`check_classes` rejects its layout.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    holds_classes = {
        entry.name: any(map(_holds_photos_of_classes, entry.iterdir())) for entry in folder.iterdir() if entry.is_dir()
    }
    names = select_channels(holds_classes, str(folder))
    if not names:
        check_classes(folder)
    return {channel: folder / name for channel, name in names.items()} or {"train": folder}


def _holds_photos_of_classes(entry: Path) -> bool:
    """Whether an entry of a channel is a class folder or a tar shard."""
    return is_shard(entry) or (entry.is_dir() and not is_junk_file(entry.name))


def select_channels(holds_classes: Mapping[str, bool], where: str) -> dict[str, str]:
    """Select the channels among the folders of a data folder or an S3 prefix.

    A folder named like a photo channel is a channel if it contains class folders or tar shards. If it contains only
    photos, it is an ordinary class, as in ``train/ bus/ car/``, unless there are channels beside it.

    Args:
        holds_classes: maps each folder's name to whether it contains class folders or tar shards.
        where: the data folder, for messages.

    Returns:
        The folder of each channel; empty if all folders are classes, which together form the channel ``train``.

    Raises:
        DataError: the layout is ambiguous, or ``train`` is missing.
    """
    folders = {name: holds for name, holds in sorted(holds_classes.items()) if not is_junk_file(name)}
    named = [(photo_channel(name), name) for name in folders]
    channels = {channel: name for channel, name in named if channel and folders[name]}
    flat = [name for channel, name in named if channel and not folders[name]]
    others = [name for channel, name in named if not channel and name not in ("pretrained", *_PREPARED)]
    if not channels and (not flat or others):
        return {}
    if flat:
        first = min(flat, key=lambda name: PHOTO_CHANNELS.index(photo_channel(name) or "train"))
        raise DataError(
            f"{where}/{first} contains no class folders: put the photos of each class into a folder of their own"
        )
    all_names = [name for channel, name in named if channel]
    if len(channels) < len(all_names):
        raise DataError(f"{where} contains two folders for the same channel among {_join(all_names)}: keep one of them")
    if "train" not in channels:
        raise DataError(
            f"{where} contains {' and '.join(channels.values())} but no train: add train/, or pass one of them"
        )
    if others:
        raise DataError(
            f"{where} contains channels ({_join(all_names)}) and other folders beside them "
            f"({_join(others[:_MAX_NAMED])}): move those into {channels['train']}/ if they are classes, or elsewhere "
            "if not"
        )
    ordered = {channel: channels[channel] for channel in PHOTO_CHANNELS if channel in channels}
    return {**ordered, **({"pretrained": "pretrained"} if "pretrained" in folders else {})}


def _join(names: list[str]) -> str:
    return ", ".join(f"{name}/" for name in names)


class NestedData(NamedTuple):
    """A folder that could be used as a data set; ``splits`` names its folders of class folders, if it has them."""

    folder: Path
    num_classes: int
    num_photos: int
    splits: tuple[str, ...]

    def __str__(self) -> str:
        photos = f"{self.num_photos:,} photos in {self.num_classes} class folders"
        return f"{self.folder}, which holds {_join(list(self.splits)) + ' with ' if self.splits else ''}{photos}"


def find_nested_data(root: Path) -> list[NestedData]:
    """Find the folders below ``root`` that hold at least two class folders, or splits; most photos come first."""
    found: list[NestedData] = []
    level, num_visited = [root], 0
    for depth in range(_MAX_DEPTH + 1):
        inner_folders: list[Path] = []
        for folder in level:
            num_visited += 1
            data = _describe_data(folder) if depth and num_visited <= _MAX_VISITED else None
            if data:
                found.append(data)
            elif num_visited <= _MAX_VISITED:
                inner_folders += _folders(folder)
        level = inner_folders
    return sorted(found, key=lambda data: (-data.num_photos, data.folder))


def _describe_data(folder: Path) -> NestedData | None:
    """Describe a folder of class folders or of splits; None if it is neither."""
    classes = {path.name: _class_folders(path) for path in _folders(folder) if photo_channel(path.name)}
    splits = tuple(name for name, found in classes.items() if len(found) >= 2)
    if "train" in map(photo_channel, splits):
        num_photos = sum(_count_photos(path) for found in classes.values() for path in found)
        return NestedData(folder, max(map(len, classes.values())), num_photos, splits)
    found = _class_folders(folder)
    return NestedData(folder, len(found), sum(map(_count_photos, found)), ()) if len(found) >= 2 else None


def _class_folders(folder: Path) -> list[Path]:
    return list(filter(_holds_photos, _folders(folder)))


def _count_photos(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(has_image_extension(entry.name) for entry in entries)


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_junk_file(entry.name))
    return (folder / name for name in names)


def _holds_photos(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(not is_junk_file(entry.name) and has_image_extension(entry.name) for entry in entries)


def suggest_nested_data(root: Path) -> str:
    """Return ``; did you mean FOLDER, which holds …?`` for an error message, or an empty string if none would do."""
    try:
        found = [str(data) for data in find_nested_data(root)[:_MAX_NAMED]]
    except OSError:  # an unreadable folder is no reason to lose the message that this belongs to
        return ""
    return f"; did you mean {', or '.join(found)}?" if found else ""


def describe_nested_classes(root: Path, *, suggest: bool = True) -> str:
    """Describe the class folders whose photos all are in subfolders, which may be the classes that were meant.

    Args:
        suggest: whether to name the folders that hold these; not for one of several splits.

    Returns:
        A warning, or an empty string if there are none.
    """
    nested = [
        folder.name for folder in _folders(root) if not _holds_photos(folder) and _holds_photos_at_any_depth(folder)
    ]
    if not nested:
        return ""
    suggestions = [str(data) for data in find_nested_data(root)[:_MAX_NAMED]] if suggest else []
    meant = f"; if those are the classes, pass {', or '.join(suggestions)}" if suggestions else ""
    named = ", ".join(map(repr, nested[:_MAX_NAMED])) + (" …" if len(nested) > _MAX_NAMED else "")
    return f"all photos of {named} are in subfolders of the class folder, which count as one class{meant}"


def check_classes(root: Path) -> None:
    """Check that a folder's own folders can be its classes, where the data set may be a folder further down.

    Raises:
        DataError: one of the folders holds channels, or only one holds photos; the message names what to pass.
    """
    folders = list(_folders(root))
    for folder in folders:
        data = _describe_data(folder)
        if data and data.splits:
            others = [path.name for path in folders if path != folder][:_MAX_NAMED]
            beside = f" ({_join(others)} would not be used)" if others else ""
            raise DataError(f"{root} is neither a folder of class folders nor of channels: pass {data}{beside}")
    classes = [folder.name for folder in folders if _holds_photos_at_any_depth(folder)]
    if len(classes) == 1 and (suggestion := suggest_nested_data(root)):
        raise DataError(f"{root} has photos of one class only, {classes[0]!r}, and training needs two{suggestion}")


def _holds_photos_at_any_depth(folder: Path) -> bool:
    return any(any(map(has_image_extension, names)) for _, _, names in os.walk(folder))

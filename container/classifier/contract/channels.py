"""Channel names, the layout of a data folder, and files that operating systems leave in it."""

from collections.abc import Mapping
from pathlib import Path

from classifier.errors import DataError

PHOTO_CHANNELS = ("train", "validation", "test")
CHANNELS = (*PHOTO_CHANNELS, "pretrained")
# Folders that scripts/prepare_data.py writes beside the channels.
_PREPARED = ("report", "shards")


def is_junk_file(name: str) -> bool:
    """Whether a file or folder is hidden or was created by an operating system (``.DS_Store``, ``Thumbs.db``, …)."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def find_channels(folder: Path) -> dict[str, Path]:
    """Map channel names to folders: ``train/``, ``validation/``, ``test/`` and ``pretrained/``, or class folders alone.

    Raises:
        DataError: the folder does not exist, or :func:`select_channels` rejects its layout.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    holds_classes = {
        entry.name: any(map(_holds_photos_of_classes, entry.iterdir())) for entry in folder.iterdir() if entry.is_dir()
    }
    names = select_channels(holds_classes, str(folder))
    return {name: folder / name for name in names} or {"train": folder}


def _holds_photos_of_classes(entry: Path) -> bool:
    """Whether an entry of a channel is a class folder or a tar shard."""
    return not is_junk_file(entry.name) and (entry.is_dir() or entry.suffix == ".tar")


def select_channels(holds_classes: Mapping[str, bool], where: str) -> tuple[str, ...]:
    """Select the channels among the folders of a data folder or an S3 prefix.

    A folder named like a photo channel is a channel if it contains class folders or tar shards. If it contains only
    photos, it is an ordinary class, as in ``train/ bus/ car/``, unless there are channels beside it.

    Args:
        holds_classes: maps each folder's name to whether it contains class folders or tar shards.
        where: the data folder, for messages.

    Returns:
        The names of the channels; empty if all folders are classes, which together form the channel ``train``.

    Raises:
        DataError: the layout is ambiguous, or ``train`` is missing.
    """
    folders = {name: holds for name, holds in holds_classes.items() if not is_junk_file(name)}
    channels = [name for name in PHOTO_CHANNELS if folders.get(name)]
    flat = [name for name in PHOTO_CHANNELS if name in folders and not folders[name]]
    others = sorted(name for name in folders if name not in (*CHANNELS, *_PREPARED))
    if not channels and (not flat or others):
        return ()
    if flat:
        raise DataError(
            f"{where}/{flat[0]} contains no class folders: put the photos of each class into a folder of their own"
        )
    if "train" not in channels:
        raise DataError(f"{where} contains {' and '.join(channels)} but no train: add train/, or pass one of them")
    if others:
        named = ", ".join(f"{name}/" for name in others[:3])
        raise DataError(
            f"{where} contains channels ({', '.join(f'{name}/' for name in channels)}) and other folders beside them "
            f"({named}): move those into train/ if they are classes, or elsewhere if not"
        )
    return (*channels, *(["pretrained"] if "pretrained" in folders else []))

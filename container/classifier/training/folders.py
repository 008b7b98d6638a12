"""Listing of a channel's folder: its classes and the files of each."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.contract.channels import has_image_extension, is_junk_file, photo_channel
from classifier.errors import DataError
from classifier.vision.manifest import ClassLabel

# 069.French_bulldog; n02085620-Chihuahua (a WordNet ID). Any other name is both label and class name.
_LABELLED_NAME = re.compile(r"(?P<label>\d+)\.(?P<name>.+)|(?P<wordnet>n\d{8})-(?P<wordnet_name>.+)")
_NUM_NAMED = 5  # class folders that an error message names


@dataclass(frozen=True)
class ChannelFolder:
    """The files of a channel.

    Attributes:
        name: the channel.
        files: by class folder, sorted.
        unexpected_files: those outside of class folders, and junk files.
    """

    name: str
    root: Path
    files: dict[str, list[Path]]
    unexpected_files: list[Path]


def list_channel(name: str, root: Path) -> ChannelFolder:
    """List a channel's class folders. Each folder is listed once, since listing is slow in FastFile mode.

    Raises:
        DataError: the folder is empty, holds no class folders, or holds the folders of several channels.
    """
    with os.scandir(root) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    folders = [entry for entry in top if entry.is_dir() and not is_junk_file(entry.name)]
    unexpected = [Path(entry.path) for entry in top if entry not in folders]
    if not folders:
        raise DataError(f"channel {name!r}: {_explain_no_folders(root, unexpected)}")
    files: dict[str, list[Path]] = {}
    for folder in folders:
        found = sorted(_walk(folder.path))
        files[folder.name] = [path for path in found if not is_junk_file(path.name)]
        unexpected += [path for path in found if is_junk_file(path.name)]
    channel = ChannelFolder(name, root, files, unexpected)
    _check_no_channels(channel)
    return channel


def _walk(folder: str) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_junk_file(name) and not _is_link_to_parent(Path(parent, name))]
        yield from (Path(parent, name) for name in names)


def _is_link_to_parent(folder: Path) -> bool:
    """Whether a folder is a link to one of its own parents, which would be followed forever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def nested_classes(channel: ChannelFolder) -> list[str]:
    """Return the classes whose photos all are in subfolders of the class folder, sorted."""
    return [label for label, depth in _photo_depths(channel).items() if depth > 1]


def _photo_depths(channel: ChannelFolder) -> dict[str, int]:
    """Return how far below the channel's folder the uppermost photo of each class is; 1 in the class folder itself."""
    num_parts = len(channel.root.parts) + 1
    depths = {
        label: [len(path.parts) - num_parts for path in files if has_image_extension(path)]
        for label, files in channel.files.items()
    }
    return {label: min(found) for label, found in sorted(depths.items()) if found}


def _check_no_channels(channel: ChannelFolder) -> None:
    """Refuse a whole data set in the place of one channel, whose splits would be taken for classes."""
    splits = [label for label in nested_classes(channel) if photo_channel(label)]
    if len(splits) > 1 and "train" in map(photo_channel, splits):
        raise DataError(
            f"channel {channel.name!r}: {channel.root} holds the folders {', '.join(splits)}, each with class folders: "
            "make each of them a channel of its own"
        )


def _explain_no_folders(root: Path, files: list[Path]) -> str:
    if any(has_image_extension(path) for path in files):
        return f"{root} holds photos but no class folders: put the photos of each class into a folder of its own"
    return f"{root} holds no class folders: add one folder of photos for each class"


def class_labels(folders: Sequence[str]) -> tuple[ClassLabel, ...]:
    """Return the classes of the folder names in sorted order, which is the order of the logits.

    If two folders would share a label (``1.0L_bottle``, ``1.5L_bottle``), whole names serve as labels of all classes.
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
    """Check that two channels hold the same class folders.

    Raises:
        DataError: they do not; the message names the folders that only one of them has.
    """
    differences = [
        f"{', '.join(map(repr, sorted(only)[:_NUM_NAMED]))}{' …' if len(only) > _NUM_NAMED else ''} only in {name!r}"
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

"""Listing of a channel's folder: its classes, and the files of each or tar shards."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.contract.channels import CLASSES_FILE, has_image_extension, is_junk_file, is_shard, photo_channel
from classifier.errors import DataError
from classifier.training.samples import Names, NamesBuilder
from classifier.training.shards import read_classes
from classifier.vision.manifest import ClassLabel

# 069.French_bulldog; n02085620-Chihuahua (a WordNet ID). Any other name is both label and class name.
_LABELLED_NAME = re.compile(r"(?P<label>\d+)\.(?P<name>.+)|(?P<wordnet>n\d{8})-(?P<wordnet_name>.+)")
_NUM_NAMED = 5  # class folders that an error message names


@dataclass(frozen=True)
class ChannelFolder:
    """The files of a channel: photos in class folders, or tar shards.

    Attributes:
        name: the channel.
        classes: names of the class folders, sorted.
        files: paths below ``root``, class by class, sorted within each; empty if there are shards.
        counts: number of files of each class.
        unexpected_files: those outside of class folders, and junk files.
        shards: names of the tar files, sorted.
        order: of the classes in the shards' labels, which are indices into it.
        streamed: whether a file is fetched when it is read (FastFile mode), so that reading it again costs as much.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    files: Names
    counts: tuple[int, ...]
    unexpected_files: list[Path]
    shards: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    streamed: bool = False

    def files_of(self, label: int) -> Iterator[str]:
        """Yield the files of a class."""
        start = sum(self.counts[:label])
        return (self.files[index] for index in range(start, start + self.counts[label]))


def list_channel(name: str, root: Path, *, streamed: bool = False) -> ChannelFolder:
    """List a channel, each folder once. No file is opened but ``classes.txt``: in FastFile mode both are slow.

    Args:
        streamed: whether the channel is in FastFile mode.

    Raises:
        DataError: the folder holds neither class folders nor shards, or both, or the folders of several channels.
    """
    with os.scandir(root) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    is_class = [entry.is_dir() and not is_junk_file(entry.name) for entry in top]
    folders = [entry for entry, is_one in zip(top, is_class, strict=True) if is_one]
    others = [Path(entry.path) for entry, is_one in zip(top, is_class, strict=True) if not is_one]
    shards = [path for path in others if is_shard(path)]
    if shards and folders:
        raise DataError(
            f"channel {name!r}: {root} holds tar shards ({shards[0].name}, …) and folders beside them "
            f"({folders[0].name}, …): keep the shards or the class folders, and move the others elsewhere"
        )
    if shards:
        order = read_classes(name, root)
        names = tuple(path.name for path in shards)
        unexpected = [path for path in others if path.name not in (*names, CLASSES_FILE)]
        nothing = Names.pack(())
        return ChannelFolder(name, root, tuple(sorted(order)), nothing, (), unexpected, names, order, streamed)
    if not folders:
        raise DataError(f"channel {name!r}: {_explain_no_folders(root, others)}")
    channel = _list_classes(name, root, [folder.name for folder in folders], others, streamed=streamed)
    _check_no_channels(channel)
    return channel


def _list_classes(
    name: str, root: Path, classes: Sequence[str], unexpected: list[Path], *, streamed: bool
) -> ChannelFolder:
    files, counts = NamesBuilder(), []
    for folder in classes:
        # In the order of the paths' parts: the files of "a" come before those of "a-b".
        found = sorted(_walk(os.path.join(root, folder)), key=lambda path: path.replace("/", "\0"))  # noqa: PTH118
        photos = [path for path in found if not is_junk_file(path.rpartition("/")[2])]
        unexpected += [root / folder / path for path in found if is_junk_file(path.rpartition("/")[2])]
        counts.append(len(photos))
        files.extend(f"{folder}/{path}" for path in photos)
    return ChannelFolder(name, root, tuple(classes), files.build(), tuple(counts), unexpected, streamed=streamed)


def _walk(folder: str) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_junk_file(name) and not _is_link_to_parent(Path(parent, name))]
        prefix = f"{parent[len(folder) + 1 :]}/" if parent != folder else ""
        yield from (f"{prefix}{name}" for name in names)


def _is_link_to_parent(folder: Path) -> bool:
    """Whether a folder is a link to one of its own parents, which would be followed forever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def nested_classes(channel: ChannelFolder) -> list[str]:
    """Return the classes whose photos all are in subfolders of the class folder, sorted."""
    return [name for label, name in enumerate(channel.classes[: len(channel.counts)]) if _is_nested(channel, label)]


def _is_nested(channel: ChannelFolder, label: int) -> bool:
    has_photos = False
    for path in filter(has_image_extension, channel.files_of(label)):
        if path.count("/") == 1:
            return False
        has_photos = True
    return has_photos


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
            (first.name, set(first.classes) - set(second.classes)),
            (second.name, set(second.classes) - set(first.classes)),
        )
        if only
    ]
    if differences:
        raise DataError(
            f"channels {first.name!r} and {second.name!r} hold different classes: {'; '.join(differences)}; "
            "both need the same class folders"
        )

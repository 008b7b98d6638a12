"""Tar shards of photos in WebDataset's layout, each read in one pass from start to end.

``KEY.jpg`` belongs to the class that ``KEY.cls`` holds: the number of a line of ``classes.txt``, counted from 0, or a
class name. Photos without ``.cls`` files belong to the class of their folder, as in a tar of class folders.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from classifier.archives import unsafe_name
from classifier.contract.channels import CLASSES_FILE, has_image_extension, is_junk_file
from classifier.errors import DataError

_BLOCK_SIZE = 1 << 20  # bytes that are read at a time
_MAX_LABEL = 4096  # bytes of a .cls file


class ShardPhoto(NamedTuple):
    """A photo in a shard.

    Attributes:
        name: the shard's name, a slash, and the entry's.
        label: index of the class in the sorted classes; -1 if there is a problem.
        data: its encoded bytes.
        offset: where they begin in the shard.
        problem: why the entry can't be used; empty if it can.
    """

    name: str
    label: int
    data: bytes
    offset: int
    problem: str = ""


def read_classes(channel: str, root: Path) -> tuple[str, ...]:
    """Read ``classes.txt``: a class name a line, in the order of the numbers in ``.cls`` files.

    Raises:
        DataError: it is missing or not UTF-8, or a class is named twice.
    """
    path = root / CLASSES_FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        raise DataError(
            f"channel {channel!r}: {root} holds tar shards but no {CLASSES_FILE}: add one beside them with a class "
            "name a line, in the order of the numbers in their .cls files"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"channel {channel!r}: {path} is not UTF-8: {error.reason} at byte {error.start}") from None
    names = tuple(line.strip() for line in lines)
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            problem = f"names {name!r} a second time" if name else "is empty"
            raise DataError(f"channel {channel!r}: {path}, line {number} {problem}: a line should be a class name")
    if not names:
        raise DataError(f"channel {channel!r}: {path} is empty: it should hold a class name a line")
    return names


class ShardReader:
    """Reads the shards of a channel.

    Args:
        channel: its name, for messages.
        order: the classes by the numbers in ``.cls`` files.
    """

    def __init__(self, channel: str, root: Path, order: tuple[str, ...]) -> None:
        self._channel, self._root = channel, root
        self._labels: Mapping[str, int] = {name: label for label, name in enumerate(sorted(order))}
        self._order = order

    def read(self, shard: str) -> Iterator[ShardPhoto]:
        """Yield the photos of a shard in its order. Other files are skipped: WebDataset's samples may have more parts.

        Raises:
            DataError: the shard is truncated, damaged or no tar.
        """
        try:
            with (self._root / shard).open("rb", buffering=_BLOCK_SIZE) as file:
                yield from self._read(shard, file)
        except OSError as error:
            raise self._error(shard, f"can't be read: {error.strerror or error}") from None

    def _read(self, shard: str, file: IO[bytes]) -> Iterator[ShardPhoto]:
        group: list[_Entry] = []
        for entry in self._entries(shard, file):
            if group and group[0].key != entry.key:
                yield from self._photos(shard, group)
                group = []
            group.append(entry)
        yield from self._photos(shard, group)

    def _entries(self, shard: str, file: IO[bytes]) -> "Iterator[_Entry]":
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while member := tar.next():
                    # tarfile keeps every member: without this, memory would grow with the number of entries.
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                    if _is_wanted(member):
                        yield _read_entry(file, member)
                _check_end(file, tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
        except (tarfile.TarError, EOFError) as error:
            raise self._error(shard, f"can't be read as a tar ({error})") from None

    def _photos(self, shard: str, group: "list[_Entry]") -> Iterator[ShardPhoto]:
        texts = {entry.stem: entry.data for entry in group if entry.is_label}
        seen: set[str] = set()
        for entry in group:
            if entry.is_label or (texts and entry.stem not in texts):
                continue  # KEY.mask.png beside KEY.jpg and KEY.cls is no photo of the class
            label, problem = self._label(entry.name, texts.get(entry.stem))
            problem = entry.problem or ("a second photo of this key" if entry.stem in seen else problem)
            if texts:
                seen.add(entry.stem)
            yield ShardPhoto(f"{shard}/{entry.name}", label, entry.data, entry.offset, problem)

    def _label(self, name: str, text: bytes | None) -> tuple[int, str]:
        """Return an entry's label, and what is wrong if it has none."""
        if text is None:
            folder = name.partition("/")[0]
            if folder in self._labels and "/" in name:
                return self._labels[folder], ""
            return (
                -1,
                f"no label: its key has no .cls file, and its folder is no class of {CLASSES_FILE}",
            )
        label = text.decode(errors="replace").strip()
        if label.isdecimal() and int(label) < len(self._order):
            return self._labels[self._order[int(label)]], ""
        if label in self._labels:
            return self._labels[label], ""
        return -1, f"the label {label[:80]!r} is none of the {len(self._order)} classes of {CLASSES_FILE}"

    def _error(self, shard: str, problem: str) -> DataError:
        return DataError(
            f"channel {self._channel!r}: the shard {self._root / shard} {problem}: write or upload it again"
        )


class _Entry(NamedTuple):
    """A photo or a label. ``key`` is the name up to the first dot, ``stem`` up to the last."""

    name: str
    key: str
    stem: str
    is_label: bool
    data: bytes
    offset: int
    problem: str


def _is_wanted(member: tarfile.TarInfo) -> bool:
    """Whether an entry is a photo or a label, by its name."""
    if member.isdir() or any(is_junk_file(part) for part in member.name.split("/") if part not in (".", "..")):
        return False
    return has_image_extension(member.name) or member.name.endswith(".cls")


def _read_entry(file: IO[bytes], member: tarfile.TarInfo) -> _Entry:
    name = member.name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    is_label = name.endswith(".cls")
    problem = unsafe_name(name)
    if not member.isreg() or member.issparse():
        problem = "a link, not a file" if member.issym() or member.islnk() else "not a regular file"
    data = b""
    if not problem:
        file.seek(member.offset_data)
        size = min(member.size, _MAX_LABEL) if is_label else member.size
        data = file.read(size)
        if len(data) < size:
            raise tarfile.ReadError(f"it ends within the entry {name}")
    key = f"{folder}{slash}{base.partition('.')[0]}"
    return _Entry(name, key, os.path.splitext(name)[0], is_label, data, member.offset_data, problem)  # noqa: PTH122


def _check_end(file: IO[bytes], offset: int) -> None:
    """Raise unless there are zeros from an offset on, and some: tarfile takes any damaged header for a tar's end."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        raise tarfile.ReadError("it is cut off: the mark of its end is missing")
    while block:
        if block.strip(b"\0"):
            raise tarfile.ReadError("a damaged header, or a second tar after its end")
        block = file.read(_BLOCK_SIZE)

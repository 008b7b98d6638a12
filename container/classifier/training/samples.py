"""Table of photos in packed columns: about 60 bytes a photo, where objects would take ten times as much."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from classifier.training.plan import ShardOrder

DIGEST_SIZE = 16
_NAMES_AT_A_TIME = 10_000


class Names(Sequence[str]):
    """Strings in one block of UTF-8. Bytes of file names that are not UTF-8 are kept.

    Args:
        blob: uint8 (total length in bytes,).
        ends: where each string ends in ``blob``, unsigned integers (N,).
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def pack(cls, names: Iterable[str]) -> "Names":
        """Pack strings."""
        builder = NamesBuilder()
        builder.extend(names)
        return builder.build()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self.ends[number - 1]) if number else 0
        return os.fsdecode(self.blob[start : int(self.ends[number])].tobytes())

    def part(self, start: int, stop: int) -> "Names":
        """Return some of the strings, in the same memory."""
        first = int(self.ends[start - 1]) if start else 0
        last = int(self.ends[stop - 1]) if stop else 0
        return Names(self.blob[first:last], self.ends[start:stop] - self.ends.dtype.type(first))


class NamesBuilder:
    """Strings to be packed, which are added a few at a time so that no list has to hold them all."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends: list[np.ndarray] = []

    def extend(self, names: Iterable[str]) -> None:
        """Add strings."""
        encoded = [os.fsencode(name) for name in names]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends.append(_smallest(lengths.cumsum() + len(self._blob)))
        self._blob += b"".join(encoded)

    def build(self) -> Names:
        """Return what was added."""
        ends = np.concatenate(self._ends) if self._ends else np.zeros(0, np.uint32)
        return Names(np.frombuffer(self._blob, np.uint8), ends)


def _smallest(ends: np.ndarray) -> np.ndarray:
    return ends.astype(np.uint32 if not len(ends) or ends[-1] < 1 << 32 else np.uint64)


@dataclass(frozen=True)
class Sample:
    """A readable photo.

    Attributes:
        path: for messages and reports; of a photo in a tar shard, the shard's path and the entry's name.
        name: its path within the channel.
        label: the index of its class.
        digest: of its bytes.
        table: to read it from, where it is number ``index``.
    """

    path: Path
    name: str
    label: int
    digest: bytes
    table: "SampleTable"
    index: int

    def read(self) -> bytes:
        """Return the photo's encoded bytes.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        return self.table.read(self.index)


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of photos, a row each. A column that does not apply to any of them has no rows.

    Attributes:
        names: their paths within the channel.
        labels: int32 (N,).
        digests: uint8 (N, DIGEST_SIZE).
        shards: the shard that holds the photo, int32 (N,); no rows for photos that are files.
        offsets: where it begins in the shard, int64 (N,).
        sizes: of the photo in bytes, uint32 (N,); of photos that are files only if there are copies.
        copied: where it begins in the file of local copies, int64 (N,); -1 if it was not copied.
    """

    names: Names
    labels: np.ndarray
    digests: np.ndarray
    shards: np.ndarray = field(default_factory=partial(np.zeros, 0, np.int32))
    offsets: np.ndarray = field(default_factory=partial(np.zeros, 0, np.int64))
    sizes: np.ndarray = field(default_factory=partial(np.zeros, 0, np.uint32))
    copied: np.ndarray = field(default_factory=partial(np.zeros, 0, np.int64))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all columns but the names."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "names"}

    def take(self, rows: np.ndarray) -> "Columns":
        """Return copies of some rows."""
        builder = NamesBuilder()
        for start in range(0, len(rows), _NAMES_AT_A_TIME):
            builder.extend(self.names[row] for row in rows[start : start + _NAMES_AT_A_TIME])
        arrays = {name: array[rows] if len(array) else array for name, array in self.arrays().items()}
        return Columns(builder.build(), **arrays)

    @classmethod
    def concatenate(cls, parts: Sequence["Columns"]) -> "Columns":
        """Return the rows of several parts of a channel, one part after the other."""
        arrays = {name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()}
        starts = np.cumsum([0, *(len(part.names.blob) for part in parts)])
        ends = [part.names.ends.astype(np.int64) + start for part, start in zip(parts, starts, strict=False)]
        blob = np.concatenate([part.names.blob for part in parts])
        return cls(Names(blob, _smallest(np.concatenate(ends))), **arrays)


class Place(NamedTuple):
    """Where a photo lies: a file, and the part of it that is the photo; ``size`` is None for the whole file."""

    file: str
    offset: int = 0
    size: int | None = None


class Copies(NamedTuple):
    """A file of local copies of photos.

    Attributes:
        start: the first row whose copy it may hold; it ends with the start of the next file.
        file: None if it is another host's.
    """

    start: int
    file: os.PathLike[str] | None


@dataclass(frozen=True, eq=False)
class SampleTable(Sequence[Sample]):
    """The photos of a channel, or a selection of them that shares the channel's columns.

    Attributes:
        root: the channel's folder.
        shards: names of its tar files.
        rows: of the columns, int32 (N,): the selected photos in their order; None for all.
        starts: the first row of each shard that is fetched anew whenever it is read, integers (num_shards,); None where
            reading a photo again, in any order, costs little.
        copies: the files of local copies, in the order of the rows.
    """

    root: Path
    columns: Columns
    shards: tuple[str, ...] = ()
    rows: np.ndarray | None = None
    starts: np.ndarray | None = None
    copies: tuple[Copies, ...] = ()

    @classmethod
    def pack(cls, root: Path, samples: Iterable[tuple[str, int, bytes]]) -> "SampleTable":
        """Return the table of photos that are files, from the name, label and digest of each."""
        names, labels, digests = zip(*samples, strict=True)
        packed = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)
        return cls(root, Columns(Names.pack(names), np.array(labels, np.int32), packed))

    def __len__(self) -> int:
        return len(self.columns.labels) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "SampleTable": ...
    def __getitem__(self, index: int | slice) -> "Sample | SampleTable":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        number = range(len(self))[index]
        row, name = self._row(number), self.name(number)
        columns = self.columns
        digest = columns.digests[row].tobytes()
        return Sample(self.root / name, name, int(columns.labels[row]), digest, self, number)

    def select(self, indices: np.ndarray) -> "SampleTable":
        """Return the photos of these indices, integers (N,), in this order. The columns are shared, not copied."""
        rows = indices if self.rows is None else self.rows[indices]
        return replace(self, rows=rows.astype(np.int32))

    @classmethod
    def concatenate(cls, parts: Sequence["SampleTable"]) -> "SampleTable":
        """Return the photos of several parts of a channel, one part after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        columns = [part.columns if part.rows is None else part.columns.take(part.rows) for part in parts]
        begins = np.cumsum([0, *map(len, parts)]).tolist()
        starts = [part.starts + begin for part, begin in zip(parts, begins, strict=False) if part.starts is not None]
        return cls(
            first.root,
            Columns.concatenate(columns),
            first.shards,
            starts=np.concatenate(starts) if starts else None,
            copies=tuple(
                copies._replace(start=begin + copies.start)
                for part, begin in zip(parts, begins, strict=False)
                for copies in part.copies
            ),
        )

    def moved(self, base: Path, to: Path) -> "SampleTable":
        """Return the same photos on another host, where what is below ``base`` here is below ``to``."""
        return replace(self, root=to / self.root.relative_to(base))

    def _row(self, index: int) -> int:
        return index if self.rows is None else int(self.rows[index])

    @property
    def labels(self) -> np.ndarray:
        """Labels of all photos, int32 (N,)."""
        return self.columns.labels if self.rows is None else self.columns.labels[self.rows]

    @property
    def num_bytes(self) -> int:
        """Memory of the columns, which several tables may share, and of this selection."""
        names, selection = self.columns.names, 0 if self.rows is None else self.rows.nbytes
        arrays = self.columns.arrays().values()
        return names.blob.nbytes + names.ends.nbytes + sum(array.nbytes for array in arrays) + selection

    def copied_amount(self) -> tuple[int, int]:
        """Return the number of photos that have local copies on any host, and their bytes."""
        rows = slice(None) if self.rows is None else self.rows
        is_copied = self.columns.copied[rows] >= 0
        return int(is_copied.sum()), int(self.columns.sizes[rows][is_copied].sum(dtype=np.int64))

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some photos, int32 (N,)."""
        return self.columns.labels[indices if self.rows is None else self.rows[indices]]

    @property
    def digests(self) -> np.ndarray:
        """Digests of all photos, uint8 (N, DIGEST_SIZE)."""
        return self.columns.digests if self.rows is None else self.columns.digests[self.rows]

    def name(self, index: int) -> str:
        """Return a photo's path within the channel."""
        return self.columns.names[self._row(index)]

    def read(self, index: int) -> bytes:
        """Return a photo's encoded bytes. A file of its own is read from start to end.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        file, offset, size = self.copy_of(index) or self.original(index)
        return read_file(file) if size is None else read_range(file, offset, size)

    def original(self, index: int) -> Place:
        """Return where a photo lies in its channel."""
        row, columns = self._row(index), self.columns
        if not len(columns.shards):
            return Place(f"{self.root}/{columns.names[row]}")
        shard = f"{self.root}/{self.shards[columns.shards[row]]}"
        return Place(shard, int(columns.offsets[row]), int(columns.sizes[row]))

    def copy_of(self, index: int) -> Place | None:
        """Return where the local copy of a photo lies; None if there is none on this host."""
        row, columns = self._row(index), self.columns
        if not len(columns.copied) or columns.copied[row] < 0:
            return None
        file = next(copies.file for copies in reversed(self.copies) if copies.start <= row)
        return None if file is None else Place(os.fspath(file), int(columns.copied[row]), int(columns.sizes[row]))

    @property
    def shard_order(self) -> ShardOrder | None:
        """How to read the photos of shards that are fetched anew whenever they are read; None for all others.

        The photos have to be in the order of the shards, see :meth:`in_order_of_shards`.
        """
        if self.starts is None or not len(self):
            return None
        rows = np.arange(len(self)) if self.rows is None else self.rows
        starts = np.searchsorted(rows, self.starts[self.starts <= rows[-1]])
        return ShardOrder(np.unique(starts), self.columns.sizes[rows])

    def in_order_of_shards(self) -> "SampleTable":
        """Return the photos as their shards hold them, one after the other, if :attr:`shard_order` needs it."""
        if self.starts is None or self.rows is None:
            return self
        return self.select(np.argsort(self.rows))


def read_file(path: str) -> bytes:
    """Return the bytes of a file, read from start to end.

    Raises:
        OSError: the file can't be read.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (called for every photo)
        return file.readall()


def read_range(path: str, offset: int, size: int) -> bytes:
    """Return a part of a file.

    Raises:
        OSError: the file can't be read, or is shorter.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, size, offset)
        while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
            data += more
    finally:
        os.close(descriptor)
    if len(data) < size:
        raise OSError(f"{path} ends before byte {offset + size:,}")
    return data

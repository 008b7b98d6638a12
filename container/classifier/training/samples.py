"""Table of photos in packed columns: about 60 bytes a photo, where objects would take ten times as much."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from classifier.training.plan import ShardOrder

DIGEST_SIZE = 16
_ALIGNMENT = 16  # of the columns of a saved table, so that each can be used where it lies
_OWN_FILE = -1


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
    """What is known of photos, a row each.

    Attributes:
        names: their paths within the channel.
        labels: int32 (N,).
        digests: uint8 (N, DIGEST_SIZE).
        containers: the file that holds the photo, an index into the table's ``files``, or -1 for a file of its own;
            int32 (N,), or (0,) if all are.
        offsets: where it begins in that file, int64, of the same length.
        sizes: of the photo in bytes, uint32, of the same length.
    """

    names: Names
    labels: np.ndarray
    digests: np.ndarray
    containers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_files(cls, names: Names, labels: np.ndarray, digests: np.ndarray) -> "Columns":
        """Photos that are files of their own."""
        return cls(names, labels, digests, np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.uint32))


class Place(NamedTuple):
    """Where a photo lies: the number of the table's file, or -1 for a file of its own; offset and size in bytes."""

    container: int
    offset: int
    size: int


class SampleTable(Sequence[Sample]):
    """The photos of a channel, or a selection of them that shares the channel's columns.

    Args:
        root: the channel's folder.
        files: those that hold several photos.
        rows: of the columns, int32 (N,): the selected photos in their order; None for all.
        starts: the first row of each shard that is fetched anew whenever it is read, integers (num_shards,); None where
            reading a photo again, in any order, costs little.
    """

    def __init__(
        self,
        root: Path,
        columns: Columns,
        files: Sequence[str | os.PathLike[str]] = (),
        rows: np.ndarray | None = None,
        starts: np.ndarray | None = None,
    ) -> None:
        self.root, self.columns, self.files = root, columns, tuple(files)
        self._rows, self._starts = rows, starts

    @classmethod
    def pack(cls, root: Path, samples: Iterable[tuple[str, int, bytes]]) -> "SampleTable":
        """Return the table of photos that are files, from the name, label and digest of each."""
        names, labels, digests = zip(*samples, strict=True)
        packed = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)
        return cls(root, Columns.of_files(Names.pack(names), np.array(labels, np.int32), packed))

    def __len__(self) -> int:
        return len(self.columns.labels) if self._rows is None else len(self._rows)

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
        rows = indices if self._rows is None else self._rows[indices]
        return SampleTable(self.root, self.columns, self.files, rows.astype(np.int32), self._starts)

    def moved(self, base: Path, to: Path) -> "SampleTable":
        """Return the same photos on another host, where what is below ``base`` here is below ``to``."""
        root = to / self.root.relative_to(base)
        files = [str(to / Path(file).relative_to(base)) for file in self.files]
        return SampleTable(root, self.columns, files, self._rows, self._starts)

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])

    @property
    def labels(self) -> np.ndarray:
        """Labels of all photos, int32 (N,)."""
        return self.columns.labels if self._rows is None else self.columns.labels[self._rows]

    @property
    def num_bytes(self) -> int:
        """Memory of the columns, which several tables may share, and of this selection."""
        names, selection = self.columns.names, 0 if self._rows is None else self._rows.nbytes
        arrays = (getattr(self.columns, item.name) for item in fields(Columns) if item.name != "names")
        return names.blob.nbytes + names.ends.nbytes + sum(array.nbytes for array in arrays) + selection

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some photos, int32 (N,)."""
        return self.columns.labels[indices if self._rows is None else self._rows[indices]]

    @property
    def digests(self) -> np.ndarray:
        """Digests of all photos, uint8 (N, DIGEST_SIZE)."""
        return self.columns.digests if self._rows is None else self.columns.digests[self._rows]

    def name(self, index: int) -> str:
        """Return a photo's path within the channel."""
        return self.columns.names[self._row(index)]

    def read(self, index: int) -> bytes:
        """Return a photo's encoded bytes. A file of its own is read from start to end.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        place = self.place(index)
        if place.container == _OWN_FILE:
            return read_file(f"{self.root}/{self.name(index)}")
        return read_range(self.files[place.container], place.offset, place.size)

    def place(self, index: int) -> Place:
        """Return where a photo lies."""
        row, columns = self._row(index), self.columns
        if not len(columns.containers):
            return Place(_OWN_FILE, 0, 0)
        return Place(int(columns.containers[row]), int(columns.offsets[row]), int(columns.sizes[row]))

    @property
    def shard_order(self) -> ShardOrder | None:
        """How to read the photos of shards that are fetched anew whenever they are read; None for all others.

        The photos have to be in the order of the shards, see :meth:`in_order_of_shards`.
        """
        if self._starts is None or not len(self):
            return None
        rows = np.arange(len(self)) if self._rows is None else self._rows
        starts = np.searchsorted(rows, self._starts[self._starts <= rows[-1]])
        return ShardOrder(np.unique(starts), self.columns.sizes[rows])

    def in_order_of_shards(self) -> "SampleTable":
        """Return the photos as their shards hold them, one after the other, if :attr:`shard_order` needs it."""
        if self._starts is None or self._rows is None:
            return self
        return self.select(np.argsort(self._rows))

    def to_bytes(self) -> bytes:
        """Return the selected photos in a form that :meth:`from_buffer` uses where it lies."""
        columns = self.columns if self._rows is None else _take(self.columns, self._rows)
        arrays = {
            "blob": columns.names.blob,
            "ends": columns.names.ends,
            **{item.name: getattr(columns, item.name) for item in fields(Columns) if item.name != "names"},
        }
        described = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
        files = [os.fspath(file) for file in self.files]
        header = json.dumps({"root": str(self.root), "files": files, "columns": described}).encode()
        parts = [len(header).to_bytes(8, "little"), header]
        parts += [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
        return parts[0] + b"".join(part + b"\0" * (-len(part) % _ALIGNMENT) for part in parts[1:])

    @classmethod
    def from_buffer(cls, buffer: Any) -> "SampleTable":
        """Return the table whose bytes are in a buffer, such as a memory map that several processes share."""
        size = int.from_bytes(buffer[:8], "little")
        header = json.loads(bytes(buffer[8 : 8 + size]))
        position = 8 + size + -size % _ALIGNMENT
        arrays: dict[str, np.ndarray] = {}
        for name, (dtype, shape) in header["columns"].items():
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(buffer, dtype, count, position).reshape(shape)
            position += -(-arrays[name].nbytes // _ALIGNMENT) * _ALIGNMENT
        names = Names(arrays.pop("blob"), arrays.pop("ends"))
        return cls(Path(header["root"]), Columns(names, **arrays), header["files"])

    @classmethod
    def concatenate(cls, tables: Sequence["SampleTable"]) -> "SampleTable":
        """Return the photos of several tables of one channel, one after the other."""
        parts = [table.columns if table._rows is None else _take(table.columns, table._rows) for table in tables]
        files: list[str | os.PathLike[str]] = []
        located: list[Columns] = []
        for table, part in zip(tables, parts, strict=True):
            located.append(_shift(part, len(files)) if any(len(one.containers) for one in parts) else part)
            files += table.files
        columns = {
            item.name: np.concatenate([getattr(part, item.name) for part in located])
            for item in fields(Columns)
            if item.name != "names"
        }
        return cls(tables[0].root, Columns(_join([part.names for part in parts]), **columns), files)


def _take(columns: Columns, rows: np.ndarray) -> Columns:
    builder = NamesBuilder()
    for start in range(0, len(rows), 10_000):
        builder.extend(columns.names[row] for row in rows[start : start + 10_000])
    located = rows if len(columns.containers) else rows[:0]
    return Columns(
        builder.build(),
        columns.labels[rows],
        columns.digests[rows],
        columns.containers[located],
        columns.offsets[located],
        columns.sizes[located],
    )


def _shift(columns: Columns, num_files: int) -> Columns:
    """Return the columns of a table whose files come after ``num_files`` others."""
    count = len(columns.labels)
    if not len(columns.containers):
        own = np.full(count, _OWN_FILE, np.int32)
        return replace(columns, containers=own, offsets=np.zeros(count, np.int64), sizes=np.zeros(count, np.uint32))
    moved = np.where(columns.containers == _OWN_FILE, _OWN_FILE, columns.containers + np.int32(num_files))
    return replace(columns, containers=moved)


def _join(parts: Sequence[Names]) -> Names:
    lengths = np.cumsum([0, *(len(part.blob) for part in parts)])
    ends = np.concatenate([part.ends.astype(np.int64) + start for part, start in zip(parts, lengths, strict=False)])
    return Names(np.concatenate([part.blob for part in parts]), _smallest(ends))


def read_file(path: str) -> bytes:
    """Return the bytes of a file, read from start to end.

    Raises:
        OSError: the file can't be read.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (called for every photo)
        return file.readall()


def read_range(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
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
        raise OSError(f"{os.fspath(path)} ends before byte {offset + size:,}")
    return data

"""Scan of the channels before the first step: readable photos and unreadable ones.

Each file is read once and decoded at the smallest scale of JPEG, which finds the same faults as a full decoding. At no
time are more photos in memory than the threads will work on next.
"""

import csv
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from classifier.contract.channels import has_image_extension
from classifier.errors import DataError, ImageError
from classifier.training.folders import ChannelFolder
from classifier.training.samples import DIGEST_SIZE, Columns, NamesBuilder, SampleTable, read_file
from classifier.training.shards import ShardPhoto, ShardReader
from classifier.training.streaming import LocalCopies
from classifier.vision.images import decode

_PHOTOS_A_TASK = 32
_BYTES_A_TASK = 4 << 20  # about; a photo may be larger
_TASKS_AHEAD = 32

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BadImage:
    """An unreadable photo; ``name`` is its path within the channel."""

    channel: str
    name: str
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """The files of a channel: readable photos, unreadable photos, and files that are not photos."""

    channel: str
    classes: tuple[str, ...]
    samples: SampleTable
    bad: list[BadImage]
    unexpected_files: list[Path]


class _Check(NamedTuple):
    """A photo's digest, or the reason why it can't be read; ``copied_to`` is its offset in the local copies, or -1."""

    digest: bytes = b""
    problem: str = ""
    size: int = 0
    copied_to: int = -1


def scan_channel(
    folder: ChannelFolder, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None = None
) -> ScanResult:
    """Read and decode every file of a channel.

    A file that is neither an image nor named like one is unexpected, not a bad photo.

    Args:
        advance: called after each file.
        copies: keep the photos, to be read there from now on.

    Raises:
        DataError: a shard is no tar, or damaged.
    """
    scan = _scan_shards if folder.shards else _scan_files
    return scan(folder, executor, advance, copies)


def _scan_files(
    folder: ChannelFolder, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None
) -> ScanResult:
    count = len(folder.files)
    offsets, sizes = (np.full(count if copies else 0, value, kind) for value, kind in ((-1, np.int64), (0, np.uint32)))
    digests = np.zeros((count, DIGEST_SIZE), np.uint8)
    is_readable = np.zeros(count, bool)
    bad, unexpected = [], list(folder.unexpected_files)

    def check_files(start: int) -> list[_Check]:
        return [_check_file(f"{folder.root}/{name}", copies) for name in folder.files[start : start + _PHOTOS_A_TASK]]

    checks = (one for task in map_ahead(executor, check_files, range(0, count, _PHOTOS_A_TASK)) for one in task)
    for row, check in enumerate(checks):
        advance()
        if not check.problem:
            digests[row] = np.frombuffer(check.digest, np.uint8)
            is_readable[row] = True
            if copies is not None:
                offsets[row], sizes[row] = check.copied_to, check.size
        elif has_image_extension(name := folder.files[row]):
            bad.append(BadImage(folder.name, name, check.problem))
        else:
            unexpected.append(folder.root / name)
    labels = np.repeat(np.arange(len(folder.counts), dtype=np.int32), folder.counts)
    containers = np.where(offsets < 0, -1, 0).astype(np.int32)
    columns = Columns(folder.files, labels, digests, containers, offsets, sizes)
    table = SampleTable(folder.root, columns, [copies] if copies else [])
    samples = table if is_readable.all() else table.select(np.flatnonzero(is_readable))
    return ScanResult(folder.name, folder.classes, samples, bad, unexpected)


def _check_file(path: str, copies: LocalCopies | None) -> _Check:
    try:
        data = read_file(path)
    except OSError as error:
        return _Check(problem=f"can't be read: {error.strerror or error}")
    return _check(data, copies)


def _check(data: bytes, copies: LocalCopies | None) -> _Check:
    try:
        decode(data, cover=1)
    except ImageError as error:
        return _Check(problem=str(error))
    digest = blake2b(data, digest_size=DIGEST_SIZE).digest()
    return _Check(digest, size=len(data), copied_to=copies.add(data) if copies else -1)


@dataclass
class _ShardColumns:
    """Columns of the photos of shards, which grow photo by photo."""

    names: NamesBuilder = field(default_factory=NamesBuilder)
    labels: array = field(default_factory=lambda: array("i"))
    digests: bytearray = field(default_factory=bytearray)
    shards: array = field(default_factory=lambda: array("i"))
    offsets: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("I"))

    def add(self, shard: int, photo: ShardPhoto, offset: int, check: _Check) -> None:
        self.names.extend([photo.name])
        self.labels.append(photo.label)
        self.digests += check.digest
        self.shards.append(shard)
        self.offsets.append(offset)
        self.sizes.append(check.size)

    def build(self) -> Columns:
        digests = np.frombuffer(self.digests, np.uint8).reshape(-1, DIGEST_SIZE)
        numbers = (np.array(values) for values in (self.labels, self.shards, self.offsets, self.sizes))
        labels, *places = numbers
        return Columns(self.names.build(), labels, digests, *places)


def _scan_shards(
    folder: ChannelFolder, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None
) -> ScanResult:
    columns, bad, starts = _ShardColumns(), [], np.zeros(len(folder.shards), np.int64)

    def check_photos(task: list[tuple[int, ShardPhoto]]) -> list[tuple[int, ShardPhoto, _Check]]:
        return [(shard, photo._replace(data=b""), _check_entry(photo, copies)) for shard, photo in task]

    for task in map_ahead(executor, check_photos, _tasks(_read_shards(folder))):
        for shard, photo, check in task:
            advance()
            if check.problem:
                bad.append(BadImage(folder.name, photo.name, check.problem))
            elif check.copied_to < 0:
                columns.add(shard, photo, photo.offset, check)
            else:
                columns.add(len(folder.shards), photo, check.copied_to, check)
            starts[shard + 1 :] = len(columns.labels)
    files = [*(f"{folder.root}/{name}" for name in folder.shards), *([copies] if copies else [])]
    table = SampleTable(folder.root, columns.build(), files, starts=starts if folder.streamed else None)
    samples = table if folder.streamed else _in_order_of_files(table)
    return ScanResult(folder.name, folder.classes, samples, bad, list(folder.unexpected_files))


def _check_entry(photo: ShardPhoto, copies: LocalCopies | None) -> _Check:
    return _Check(problem=photo.problem) if photo.problem else _check(photo.data, copies)


def _read_shards(folder: ChannelFolder) -> Iterator[tuple[int, ShardPhoto]]:
    reader = ShardReader(folder.name, folder.root, folder.order)
    return ((number, photo) for number, shard in enumerate(folder.shards) for photo in reader.read(shard))


def _tasks(photos: Iterable[tuple[int, ShardPhoto]]) -> Iterator[list[tuple[int, ShardPhoto]]]:
    task: list[tuple[int, ShardPhoto]] = []
    for item in photos:
        task.append(item)
        if len(task) == _PHOTOS_A_TASK or sum(len(photo.data) for _, photo in task) >= _BYTES_A_TASK:
            yield task
            task = []
    yield task


def _in_order_of_files(table: SampleTable) -> SampleTable:
    """Return the photos in the order of a channel of class folders: by class, then by name.

    It does not depend on how the photos are divided among the shards.
    """
    labels, names = table.labels, table.columns.names
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    keys = ((rows, [names[row].partition("/")[2].replace("/", "\0") for row in rows]) for rows in classes)
    by_name = [rows[sorted(range(len(rows)), key=found.__getitem__)] for rows, found in keys if len(rows)]
    return table.select(np.concatenate(by_name)) if by_name else table


def map_ahead(executor: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the function's results in the order of the items, of which only a few are taken before they are needed."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > _TASKS_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for task in pending:
            task.cancel()


def check_bad_share(result: ScanResult, max_share: float, listing: Path) -> None:
    """Check that a channel has readable photos, and not too many unreadable ones.

    Args:
        max_share: the largest share of unreadable photos, the hyperparameter ``max_bad_images``.
        listing: the file that lists them, for the message.

    Raises:
        DataError: more photos are unreadable than ``max_share`` of all, or none is readable.
    """
    total = len(result.bad) + len(result.samples)
    if total and len(result.bad) <= max_share * total and result.samples:
        return
    if not result.bad:
        raise DataError(f"channel {result.channel!r}: no photos in its class folders; add photos to each")
    example = result.bad[0]
    limit = f"max_bad_images={max_share:g} allows {int(max_share * total)}" if result.samples else "none is left"
    raise DataError(
        f"channel {result.channel!r}: {len(result.bad)} of {total} photos can't be read, and {limit}; "
        f"for example {example.name}: {example.reason}; all are listed in {listing}"
    )


def write_bad_images(path: Path, results: Iterable[ScanResult]) -> None:
    """Write ``bad_images.csv``: channel, path within it, reason."""
    rows = [(bad.channel, bad.name, bad.reason) for result in results for bad in result.bad]
    write_csv(path, ("channel", "path", "reason"), rows)


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a table, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])

"""Scan of the channels before the first step: readable photos and unreadable ones.

Each file is read once and decoded at the smallest scale of JPEG, which finds the same faults as a full decoding. At no
time are more photos in memory than the threads will work on next.
"""

import csv
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from classifier.contract.channels import has_image_extension
from classifier.errors import DataError, ImageError
from classifier.training.folders import ChannelFolder
from classifier.training.plan import nth_part
from classifier.training.samples import DIGEST_SIZE, Columns, Copies, NamesBuilder, SampleTable, read_file
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


class Share(NamedTuple):
    """One of ``num_shares`` parts of a channel, which different ranks check."""

    number: int = 0
    num_shares: int = 1


def scan_channel(
    folder: ChannelFolder, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None = None
) -> ScanResult:
    """Read and decode every file of a channel, see :func:`scan_share`."""
    return merge_shares(folder, [scan_share(folder, Share(), executor, advance, copies)])


def scan_share(
    folder: ChannelFolder,
    share: Share,
    executor: Executor,
    advance: Callable[[], object],
    copies: LocalCopies | None = None,
) -> ScanResult:
    """Read and decode the files of a share of a channel.

    A file that is neither an image nor named like one is unexpected, not a bad photo.

    Args:
        advance: called after each file.
        copies: keep the photos, to be read there from now on.

    Raises:
        DataError: a shard is no tar, or damaged.
    """
    scan = _scan_shards if folder.shards else _scan_files
    return scan(folder, share, executor, advance, copies)


def merge_shares(folder: ChannelFolder, shares: Sequence[ScanResult]) -> ScanResult:
    """Return the result of a whole channel from those of all its shares, in their order.

    Photos of shards that can be read in any order are put into the order of class folders: by class, then by name. So
    it does not depend on how the photos are divided among the shards.
    """
    samples = SampleTable.concatenate([share.samples for share in shares])
    if folder.shards and samples.starts is None:
        samples = _in_order_of_files(samples)
    bad = [one for share in shares for one in share.bad]
    unexpected = [*folder.unexpected_files, *(one for share in shares for one in share.unexpected_files)]
    return ScanResult(folder.name, folder.classes, samples, bad, unexpected)


def _scan_files(
    folder: ChannelFolder, share: Share, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None
) -> ScanResult:
    rows = nth_part(np.arange(len(folder.files)), *share)
    files = folder.files.part(int(rows[0]), int(rows[-1]) + 1) if len(rows) else folder.files.part(0, 0)
    count = len(files)
    copied = np.full(count if copies else 0, -1, np.int64)
    sizes = np.zeros(len(copied), np.uint32)
    digests = np.zeros((count, DIGEST_SIZE), np.uint8)
    is_readable = np.zeros(count, bool)
    bad: list[BadImage] = []
    unexpected: list[Path] = []

    def check_files(start: int) -> list[_Check]:
        return [_check_file(f"{folder.root}/{name}", copies) for name in files[start : start + _PHOTOS_A_TASK]]

    checks = (one for task in map_ahead(executor, check_files, range(0, count, _PHOTOS_A_TASK)) for one in task)
    for row, check in enumerate(checks):
        advance()
        if not check.problem:
            digests[row] = np.frombuffer(check.digest, np.uint8)
            is_readable[row] = True
            if copies is not None:
                copied[row], sizes[row] = check.copied_to, check.size
        elif has_image_extension(name := files[row]):
            bad.append(BadImage(folder.name, name, check.problem))
        else:
            unexpected.append(folder.root / name)
    labels = np.repeat(np.arange(len(folder.counts), dtype=np.int32), folder.counts)[rows]
    columns = Columns(files, labels, digests, sizes=sizes, copied=copied)
    table = SampleTable(folder.root, columns, copies=_copies(copies))
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
    copied: array = field(default_factory=lambda: array("q"))

    def add(self, shard: int, photo: ShardPhoto, check: _Check) -> None:
        self.names.extend([photo.name])
        self.labels.append(photo.label)
        self.digests += check.digest
        self.shards.append(shard)
        self.offsets.append(photo.offset)
        self.sizes.append(check.size)
        self.copied.append(check.copied_to)

    def build(self, *, with_copies: bool) -> Columns:
        return Columns(
            self.names.build(),
            np.array(self.labels),
            np.frombuffer(self.digests, np.uint8).reshape(-1, DIGEST_SIZE),
            shards=np.array(self.shards),
            offsets=np.array(self.offsets),
            sizes=np.array(self.sizes),
            copied=np.array(self.copied if with_copies else self.copied[:0]),
        )


def _scan_shards(
    folder: ChannelFolder, share: Share, executor: Executor, advance: Callable[[], object], copies: LocalCopies | None
) -> ScanResult:
    numbers = nth_part(np.arange(len(folder.shards)), *share)
    columns, bad, starts = _ShardColumns(), [], np.zeros(len(numbers), np.int64)

    def check_photos(task: list[tuple[int, ShardPhoto]]) -> list[tuple[int, ShardPhoto, _Check]]:
        return [(shard, photo._replace(data=b""), _check_entry(photo, copies)) for shard, photo in task]

    for task in map_ahead(executor, check_photos, _tasks(_read_shards(folder, numbers))):
        for shard, photo, check in task:
            advance()
            if check.problem:
                bad.append(BadImage(folder.name, photo.name, check.problem))
            else:
                columns.add(shard, photo, check)
            starts[numbers > shard] = len(columns.labels)
    table = SampleTable(
        folder.root,
        columns.build(with_copies=copies is not None),
        folder.shards,
        starts=starts if folder.streamed else None,
        copies=_copies(copies),
    )
    return ScanResult(folder.name, folder.classes, table, bad, [])


def _copies(copies: LocalCopies | None) -> tuple[Copies, ...]:
    return () if copies is None else (Copies(0, copies),)


def _check_entry(photo: ShardPhoto, copies: LocalCopies | None) -> _Check:
    return _Check(problem=photo.problem) if photo.problem else _check(photo.data, copies)


def _read_shards(folder: ChannelFolder, numbers: np.ndarray) -> Iterator[tuple[int, ShardPhoto]]:
    reader = ShardReader(folder.name, folder.root, folder.order)
    return ((number, photo) for number in numbers.tolist() for photo in reader.read(folder.shards[number]))


def _tasks(photos: Iterable[tuple[int, ShardPhoto]]) -> Iterator[list[tuple[int, ShardPhoto]]]:
    task: list[tuple[int, ShardPhoto]] = []
    for item in photos:
        task.append(item)
        if len(task) == _PHOTOS_A_TASK or sum(len(photo.data) for _, photo in task) >= _BYTES_A_TASK:
            yield task
            task = []
    yield task


def _in_order_of_files(table: SampleTable) -> SampleTable:
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

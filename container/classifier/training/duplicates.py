"""Photos with the same bytes, in several channels or several classes, and the fingerprint of all bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classifier.training.scan import ScanResult, write_csv

_LINES_AT_A_TIME = 10_000


class Groups(NamedTuple):
    """Rows with the same digest next to each other, in the order of the digests.

    Attributes:
        order: rows, ascending within a group, integers (N,).
        starts: where each group begins in ``order``, integers (num_groups,).
    """

    order: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each group, integers (num_groups,)."""
        return np.diff(self.starts, append=len(self.order))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return for each row, in the order of the rows, its group's value; (N,)."""
        spread = np.empty(len(self.order), values.dtype)
        spread[self.order] = np.repeat(values, self.sizes)
        return spread

    def rows_of(self, groups: np.ndarray) -> np.ndarray:
        """Return the rows of these groups, integers (N,), group by group."""
        sizes = self.sizes[groups]
        ends = sizes.cumsum()
        return self.order[np.arange(sizes.sum()) + np.repeat(self.starts[groups] - ends + sizes, sizes)]


def group_by_digest(digests: np.ndarray) -> Groups:
    """Group rows by their digests, uint8 (N, 16)."""
    # Big-endian halves, whose order as numbers is that of the bytes.
    upper, lower = np.ascontiguousarray(digests).view(">u8").astype(np.uint64).T
    order = np.lexsort((lower, upper))
    changes = (np.diff(upper[order]) != 0) | (np.diff(lower[order]) != 0)
    return Groups(order, np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), bool), changes])))


def in_several_classes(groups: Groups, labels: np.ndarray) -> np.ndarray:
    """Return whether each row's digest has several labels, bool (N,)."""
    if not len(labels):
        return np.zeros(0, bool)
    ordered = labels[groups.order]
    lowest, highest = (function.reduceat(ordered, groups.starts) for function in (np.minimum, np.maximum))
    return groups.spread(lowest != highest)


class _AllChannels:
    """The photos of all channels as rows, one channel after the other."""

    def __init__(self, results: Sequence[ScanResult]) -> None:
        self.results = results
        self.labels = np.concatenate([result.samples.labels for result in results])
        self.groups = group_by_digest(np.concatenate([result.samples.digests for result in results]))
        self.first = self.groups.spread(self.groups.order[self.groups.starts])
        self._starts = np.cumsum([0, *(len(result.samples) for result in results)])

    def channel(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows' channels."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def locate(self, row: int) -> tuple[ScanResult, int]:
        """Return a row's channel, and its number there."""
        channel = int(self.channel(np.array(row)))
        return self.results[channel], row - int(self._starts[channel])


@dataclass(frozen=True)
class Leak:
    """A photo whose bytes are in two channels, which inflates the metrics of the second; the paths are within them."""

    first_channel: str
    first: str
    second_channel: str
    second: str


def find_leaks(results: Sequence[ScanResult]) -> list[Leak]:
    """Return the photos whose bytes also are in an earlier channel, in the order of the channels."""
    photos = _AllChannels(results)
    rows = np.arange(len(photos.first))
    leaks: list[Leak] = []
    for row in np.flatnonzero(photos.channel(photos.first) < photos.channel(rows)).tolist():
        (first, at), (second, index) = photos.locate(int(photos.first[row])), photos.locate(row)
        leaks.append(Leak(first.channel, first.samples.name(at), second.channel, second.samples.name(index)))
    return leaks


def write_leaks(path: Path, leaks: Sequence[Leak]) -> None:
    """Write ``leaks.csv``: both paths of each photo that is in two channels."""
    rows = [(leak.second_channel, leak.second, leak.first_channel, leak.first) for leak in leaks]
    write_csv(path, ("channel", "path", "also_in_channel", "also_in_path"), rows)


class Conflict(NamedTuple):
    """A photo whose bytes are also in another class.

    Attributes:
        name: its path within the channel.
        folder: its class folder.
        digest: of its bytes, the same for all photos that contradict each other.
    """

    channel: str
    name: str
    folder: str
    digest: bytes


def find_conflicts(results: Sequence[ScanResult]) -> list[Conflict]:
    """Return the photos whose bytes are in several classes, of one channel or of several, next to each other."""
    photos = _AllChannels(results)
    rows = np.flatnonzero(in_several_classes(photos.groups, photos.labels))
    conflicts: list[Conflict] = []
    for row in rows[np.argsort(photos.first[rows], kind="stable")].tolist():
        result, index = photos.locate(row)
        sample = result.samples[index]
        conflicts.append(Conflict(result.channel, sample.name, result.classes[sample.label], sample.digest))
    return conflicts


def write_conflicts(path: Path, conflicts: Sequence[Conflict]) -> None:
    """Write ``conflicts.csv``: photos of the same bytes in different classes; ``group`` numbers the different bytes."""
    numbers = {digest: str(number) for number, digest in enumerate(dict.fromkeys(item.digest for item in conflicts), 1)}
    rows = [(numbers[item.digest], item.channel, item.name, item.folder) for item in conflicts]
    write_csv(path, ("group", "channel", "path", "class"), rows)


def fingerprint(results: Iterable[ScanResult]) -> str:
    """Return a digest of every photo's bytes, class and channel, independent of file names.

    It is that of the sorted lines ``CHANNEL LABEL DIGEST``, joined by newlines.
    """
    digest, separator = blake2b(digest_size=16), b""
    for result in sorted(results, key=lambda result: result.channel):
        labels, digests = result.samples.labels, result.samples.digests
        order = group_by_digest(digests).order
        order = order[np.argsort(labels[order], kind="stable")]
        bounds = np.searchsorted(labels[order], range(len(result.classes) + 1))
        # The lines are sorted as text, where 10 comes before 2.
        for label, (start, end) in sorted(enumerate(pairwise(bounds.tolist())), key=lambda item: str(item[0])):
            for first in range(start, end, _LINES_AT_A_TIME):
                rows = order[first : min(end, first + _LINES_AT_A_TIME)]
                lines = [f"{result.channel} {label} {digests[row].tobytes().hex()}" for row in rows]
                digest.update(separator + "\n".join(lines).encode())
                separator = b"\n"
    return digest.hexdigest()

"""Scan of the channels before the first step: readable photos, unreadable ones, and copies in several channels.

Each file is read once and decoded at the smallest scale of JPEG, which finds the same faults as a full decoding.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from classifier.contract.channels import has_image_extension
from classifier.errors import DataError, ImageError
from classifier.training.folders import ChannelFolder
from classifier.vision.images import decode


@dataclass(frozen=True)
class Sample:
    """A readable photo.

    Attributes:
        name: its path within the channel.
        label: the index of its class.
        digest: of its bytes.
    """

    path: Path
    name: str
    label: int
    digest: bytes


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
    samples: list[Sample]
    bad: list[BadImage]
    unexpected_files: list[Path]


def scan_channel(folder: ChannelFolder, executor: Executor, advance: Callable[[], object]) -> ScanResult:
    """Read and decode every file of a channel.

    A file that is neither an image nor named like one is unexpected, not a bad photo.

    Args:
        advance: called after each file.
    """
    result = ScanResult(folder.name, [], [], list(folder.unexpected_files))
    files = [(path, label) for label, name in enumerate(sorted(folder.files)) for path in folder.files[name]]
    checks = executor.map(_check_photo, (path for path, _ in files))
    for (path, label), check in zip(files, checks, strict=True):
        advance()
        name = path.relative_to(folder.root).as_posix()
        if isinstance(check, bytes):
            result.samples.append(Sample(path, name, label, check))
        elif has_image_extension(path):
            result.bad.append(BadImage(folder.name, name, check))
        else:
            result.unexpected_files.append(path)
    return result


def _check_photo(path: Path) -> bytes | str:
    """Return the digest of a readable photo, or the reason why it can't be read."""
    try:
        data = path.read_bytes()
        decode(data, cover=1)
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    except ImageError as error:
        return str(error)
    return blake2b(data, digest_size=16).digest()


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
    _write_csv(path, ("channel", "path", "reason"), rows)


@dataclass(frozen=True)
class Leak:
    """A photo whose bytes are in two channels, which inflates the metrics of the second; the paths are within them."""

    first_channel: str
    first: str
    second_channel: str
    second: str


def find_leaks(results: Sequence[ScanResult]) -> list[Leak]:
    """Return the photos whose bytes also are in an earlier channel, in the order of the channels."""
    leaks: list[Leak] = []
    seen: dict[bytes, tuple[str, str]] = {}
    for result in results:
        for sample in result.samples:
            if sample.digest in seen:
                leaks.append(Leak(*seen[sample.digest], result.channel, sample.name))
        for sample in result.samples:
            seen.setdefault(sample.digest, (result.channel, sample.name))
    return leaks


def write_leaks(path: Path, leaks: Sequence[Leak]) -> None:
    """Write ``leaks.csv``: both paths of each photo that is in two channels."""
    rows = [(leak.second_channel, leak.second, leak.first_channel, leak.first) for leak in leaks]
    _write_csv(path, ("channel", "path", "also_in_channel", "also_in_path"), rows)


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
    labels: dict[bytes, set[int]] = defaultdict(set)
    for result in results:
        for sample in result.samples:
            labels[sample.digest].add(sample.label)
    groups: dict[bytes, list[Conflict]] = defaultdict(list)
    for result in results:
        for sample in result.samples:
            if len(labels[sample.digest]) > 1:
                folder = sample.name.partition("/")[0]
                groups[sample.digest].append(Conflict(result.channel, sample.name, folder, sample.digest))
    return [conflict for group in groups.values() for conflict in group]


def write_conflicts(path: Path, conflicts: Sequence[Conflict]) -> None:
    """Write ``conflicts.csv``: photos of the same bytes in different classes; ``group`` numbers the different bytes."""
    numbers = {digest: str(number) for number, digest in enumerate(dict.fromkeys(item.digest for item in conflicts), 1)}
    rows = [(numbers[item.digest], item.channel, item.name, item.folder) for item in conflicts]
    _write_csv(path, ("group", "channel", "path", "class"), rows)


def fingerprint(results: Iterable[ScanResult]) -> str:
    """Return a digest of every photo's bytes, class and channel, independent of file names."""
    lines = sorted(
        f"{result.channel} {sample.label} {sample.digest.hex()}" for result in results for sample in result.samples
    )
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])

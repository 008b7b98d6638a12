"""The files of a channel → the photos that can be read, and why the others can't. All before the first step.

Each file is read once and decoded at the smallest scale that JPEG has, which finds what a full decoding would find.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from classifier.errors import DataError, ImageError
from classifier.training.folders import ChannelFolder, looks_like_photo
from classifier.vision.images import decode


@dataclass(frozen=True)
class Sample:
    """A photo that can be read; ``name`` is its path within the channel."""

    path: Path
    name: str
    label: int
    digest: bytes


@dataclass(frozen=True)
class BadImage:
    """A photo that can't."""

    channel: str
    name: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """A channel, looked through."""

    channel: str
    samples: list[Sample]
    bad: list[BadImage]
    strays: list[Path]


def scan_channel(folder: ChannelFolder, executor: Executor, advance: Callable[[], object]) -> Survey:
    """Read every file of a channel; ``advance`` is called after each.

    A file that is no image and is not named like one is a stray, not a bad photo.
    """
    survey = Survey(folder.name, [], [], list(folder.strays))
    files = [(path, label) for label, name in enumerate(sorted(folder.files)) for path in folder.files[name]]
    outcomes = executor.map(_check, (path for path, _ in files))
    for (path, label), outcome in zip(files, outcomes, strict=True):
        advance()
        name = path.relative_to(folder.root).as_posix()
        if isinstance(outcome, bytes):
            survey.samples.append(Sample(path, name, label, outcome))
        elif looks_like_photo(path):
            survey.bad.append(BadImage(folder.name, name, outcome))
        else:
            survey.strays.append(path)
    return survey


def _check(path: Path) -> bytes | str:
    """The digest of a readable photo, or what is wrong with it."""
    try:
        data = path.read_bytes()
        decode(data, cover=1)
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    except ImageError as error:
        return str(error)
    return blake2b(data, digest_size=16).digest()


def check_bad_share(survey: Survey, max_share: float, listing: Path) -> None:
    """
    Raises:
        DataError: more photos can't be read than ``max_share`` of all allows, or none can.
    """
    total = len(survey.bad) + len(survey.samples)
    if total and len(survey.bad) <= max_share * total and survey.samples:
        return
    if not survey.bad:
        raise DataError(f"channel {survey.channel!r} holds class folders but no photos")
    example = survey.bad[0]
    limit = f"max_bad_images={max_share:g} allows {int(max_share * total)}" if survey.samples else "none is left"
    raise DataError(
        f"channel {survey.channel!r}: {len(survey.bad)} of {total} photos can't be read, and {limit}; "
        f"for one, {example.name}: {example.reason}; all are listed in {listing}"
    )


def write_bad_images(path: Path, surveys: Iterable[Survey]) -> None:
    """``bad_images.csv``: channel, path within it, reason."""
    rows = [(bad.channel, bad.name, bad.reason) for survey in surveys for bad in survey.bad]
    _write_csv(path, ("channel", "path", "reason"), rows)


@dataclass(frozen=True)
class Leak:
    """The same bytes in two channels, so that one judges what the other has taught."""

    first_channel: str
    first: str
    second_channel: str
    second: str


def find_leaks(surveys: Sequence[Survey]) -> list[Leak]:
    """Photos whose bytes also lie in an earlier channel, in the channels' order."""
    leaks: list[Leak] = []
    seen: dict[bytes, tuple[str, str]] = {}
    for survey in surveys:
        for sample in survey.samples:
            if sample.digest in seen:
                leaks.append(Leak(*seen[sample.digest], survey.channel, sample.name))
        for sample in survey.samples:
            seen.setdefault(sample.digest, (survey.channel, sample.name))
    return leaks


def write_leaks(path: Path, leaks: Sequence[Leak]) -> None:
    """``leaks.csv``: the two places of each photo that lies in two channels."""
    rows = [(leak.second_channel, leak.second, leak.first_channel, leak.first) for leak in leaks]
    _write_csv(path, ("channel", "path", "also_in_channel", "also_in_path"), rows)


def fingerprint(surveys: Iterable[Survey]) -> str:
    """A digest of each photo's bytes, class and channel, whatever the files are called."""
    lines = sorted(
        f"{survey.channel} {sample.label} {sample.digest.hex()}" for survey in surveys for sample in survey.samples
    )
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])

"""Training, validation and test photos of a job."""

import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classifier.contract.channels import PHOTO_CHANNELS, suggest_nested_data
from classifier.contract.config import TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import DataError
from classifier.training.console import Console, Progress
from classifier.training.duplicates import (
    Conflict,
    Leak,
    find_conflicts,
    find_leaks,
    fingerprint,
    group_by_digest,
    in_several_classes,
    write_conflicts,
    write_leaks,
)
from classifier.training.folders import ChannelFolder, check_same_classes, class_labels, list_channel, nested_classes
from classifier.training.group import Group
from classifier.training.samples import SampleTable
from classifier.training.scan import ScanResult, Share, check_bad_share, merge_shares, scan_share, write_bad_images
from classifier.training.stopping import SharedStop
from classifier.training.streaming import LocalCopies
from classifier.vision.images import tolerate_truncated_images
from classifier.vision.manifest import ClassLabel

_NUM_NAMED = 5  # examples that a warning names


@dataclass(frozen=True)
class Data:
    """The photos of a job.

    Attributes:
        classes: in the order of the logits.
        copies: those that this process made of its share, which are gone when nothing refers to them.
    """

    classes: tuple[ClassLabel, ...]
    train: SampleTable
    validation: SampleTable
    test: SampleTable
    fingerprint: str
    copies: LocalCopies | None = None

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Numbers of photos by channel and class, in the order of ``classes``; empty channels are left out."""
        channels = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            name: tuple(np.bincount(samples.labels, minlength=len(self.classes)).tolist())
            for name, samples in channels.items()
            if samples
        }

    def moved(self, base: Path, to: Path) -> "Data":
        """Return the same photos on another host, where what is below ``base`` here is below ``to``."""
        train, validation, test = (one.moved(base, to) for one in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def list_channels(config: TrainingConfig, paths: Paths) -> tuple[ChannelFolder, ...]:
    """List the photo channels of a job, ``train`` first.

    Raises:
        DataError: a channel's folder is empty, has one class, or other classes than ``train``.
    """
    folders = [
        list_channel(name, paths.channel(name), streamed=config.channels[name].training_input_mode == "FastFile")
        for name in PHOTO_CHANNELS
        if name in config.channels
    ]
    train, *others = folders
    if len(train.classes) < 2:
        raise DataError(
            f"channel 'train': its only class is {''.join(train.classes)!r}; add a folder for each further class"
            f"{suggest_nested_data(train.root)}"
        )
    for other in others:
        check_same_classes(train, other)
    return tuple(folders)


@contextmanager
def truncation_policy(parameters: Hyperparameters) -> Iterator[None]:
    """Decode truncated photos as the hyperparameter ``truncated_images`` says, and reject them again afterwards.

    Pillow has one setting for the whole process, so this encloses everything that decodes photos of the job.
    """
    tolerate_truncated_images(parameters.truncated_images == "load")
    try:
        yield
    finally:
        tolerate_truncated_images(False)


def load_data(
    folders: Sequence[ChannelFolder],
    parameters: Hyperparameters,
    output: Path,
    executor: Executor,
    progress: Progress,
    stop: SharedStop | None = None,
    copies: LocalCopies | None = None,
) -> Data:
    """Scan all photos of all channels, report what was found, and split ``train`` if there is no validation channel.

    Each rank scans a share. Rank 0 puts them together and reports, and all get the same result.

    Args:
        folders: the same lists on every rank, with the folders of its host.
        output: the folder for ``bad_images.csv``, ``conflicts.csv`` and ``leaks.csv``.
        stop: of the ranks; None for one rank.
        copies: for the photos of channels in FastFile mode; a file on the local disk unless given.

    Raises:
        DataError: too many photos of a channel, or all of a class, can't be read.
        Stopped: a stop was requested.
    """
    stop = stop or SharedStop(progress.stop, Group())
    group = stop.group
    if group.is_main:
        _warn_of_nested_classes(folders[0], progress.console)
    if copies is None and any(folder.streamed for folder in folders):
        copies = LocalCopies(num_ranks=group.local_world_size)
    with stop.agreement():
        share = _scan(folders, Share(group.rank, group.world_size), executor, progress, copies)
    shares, data = group.gather(share), None
    with stop.agreement():
        if group.is_main:
            merged = [merge_shares(folder, parts) for folder, *parts in zip(folders, *shares, strict=True)]
            data = _report_and_split(merged, parameters, output, progress.console)
    if group.is_alone and data is not None:
        return data
    base, found = group.broadcast((folders[0].root.parent, data))
    assert found is not None, "rank 0 has put it together"
    return replace(found.moved(base, folders[0].root.parent), copies=copies)


def _scan(
    folders: Sequence[ChannelFolder], share: Share, executor: Executor, progress: Progress, copies: LocalCopies | None
) -> list[ScanResult]:
    total = sum(len(folder.files) for folder in folders)
    with progress.track("checking photos", total // share.num_shares) as advance:
        return [scan_share(one, share, executor, advance, copies if one.streamed else None) for one in folders]


def _report_and_split(
    merged: Sequence[ScanResult], parameters: Hyperparameters, output: Path, console: Console
) -> Data:
    results = {result.channel: result for result in merged}
    _report(results, parameters.max_bad_images, output, console)
    classes = class_labels(merged[0].classes)
    _check_every_class_has_photos(classes, results["train"])
    train = results["train"].samples
    if "validation" in results:
        validation = results["validation"].samples
    else:
        train, validation = split(train, parameters.validation_split, parameters.seed)
    test = results["test"].samples if "test" in results else train[:0]
    train, validation, test = (samples.in_order_of_shards() for samples in (train, validation, test))
    return Data(classes, train, validation, test, fingerprint(results.values()))


def _report_copies(results: Iterable[ScanResult], console: Console) -> None:
    tables = [result.samples for result in results if result.samples.copies]
    if tables:
        amounts = [table.copied_amount() for table in tables]
        num_copied, num_bytes = (sum(values) for values in zip(*amounts, strict=True))
        total = sum(map(len, tables))
        others = "" if num_copied == total else "; every epoch fetches the others, for which the disk has no room"
        console.log(
            f"fastfile    {num_copied:,} of {total:,} photos ({num_bytes / 1e9:.1f} GB) copied to "
            f"{tempfile.gettempdir()} as they were checked{others}"
        )


def _warn_of_nested_classes(train: ChannelFolder, console: Console) -> None:
    if nested := nested_classes(train):
        console.warn(
            f"all photos of {_join_examples(list(map(repr, nested)))} are in subfolders of the class folder, which "
            "count as one class; if they are the classes, make the folder that holds them the channel"
        )


def _report(results: dict[str, ScanResult], max_bad_share: float, output: Path, console: Console) -> None:
    listing = output / "bad_images.csv"
    write_bad_images(listing, results.values())
    for result in results.values():
        check_bad_share(result, max_bad_share, listing)
        if result.bad:
            named = _join_examples([f"{bad.name} ({bad.reason})" for bad in result.bad])
            console.warn(f"channel {result.channel!r}: unreadable photos skipped: {len(result.bad)} ({named})")
        if result.unexpected_files:
            num_files = len(result.unexpected_files)
            named = _join_examples([path.name for path in result.unexpected_files])
            console.warn(f"channel {result.channel!r}: files skipped that are not photos: {num_files} ({named})")
    _report_copies(results.values(), console)
    _report_conflicts(find_conflicts(list(results.values())), output / "conflicts.csv", console)
    leaks = find_leaks(list(results.values()))
    if leaks:
        write_leaks(output / "leaks.csv", leaks)
        named = _join_examples([_describe_leak(leak) for leak in leaks])
        console.warn(
            f"photos in two channels, which inflates the metrics: {len(leaks)} ({named}); "
            f"all are listed in {output / 'leaks.csv'}"
        )


def _report_conflicts(conflicts: Sequence[Conflict], path: Path, console: Console) -> None:
    if conflicts:
        write_conflicts(path, conflicts)
        num_groups = len({conflict.digest for conflict in conflicts})
        named = _join_examples([f"{conflict.channel}/{conflict.name}" for conflict in conflicts])
        console.warn(
            f"the same bytes in different classes, of which at most one can be right: {len(conflicts)} photos of "
            f"{num_groups} different contents ({named}); all are listed in {path}"
        )


def _describe_leak(leak: Leak) -> str:
    return f"{leak.second_channel}/{leak.second} is {leak.first_channel}/{leak.first}"


def _join_examples(items: list[str]) -> str:
    more = f" and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return "; ".join(items[:_NUM_NAMED]) + more


def _check_every_class_has_photos(classes: Sequence[ClassLabel], train: ScanResult) -> None:
    counts = np.bincount(train.samples.labels, minlength=len(classes))
    empty = [item.folder for item, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"channel 'train': no readable photo in {', '.join(map(repr, empty))}; add some or remove the folder"
        )


def split(samples: SampleTable, share: float, seed: int) -> tuple[SampleTable, SampleTable]:
    """Split samples into training and validation, stratified by class and determined by the seed.

    Photos with the same bytes stay on the same side. If they are in several classes, that is train: no label of theirs
    is known to be right, so none can judge the model.

    Args:
        share: of each class with at least two different photos that goes to validation; both sides get at least one.

    Raises:
        DataError: no class has two different photos.
    """
    labels, digests = samples.labels, samples.digests
    is_doubtful = in_several_classes(group_by_digest(digests), labels)
    train = [np.array(sorted(np.flatnonzero(is_doubtful).tolist(), key=samples.name), np.int64)]
    validation: list[np.ndarray] = [train[0][:0]]
    generator = random.Random(seed)
    for label in range(int(labels.max()) + 1):
        rows = np.flatnonzero((labels == label) & ~is_doubtful)
        if not len(rows):
            continue
        groups = group_by_digest(digests[rows])
        order = list(range(len(groups.starts)))
        generator.shuffle(order)
        num_validation = min(max(1, round(share * len(order))), len(order) - 1)
        validation.append(rows[groups.rows_of(np.array(order[:num_validation], np.int64))])
        train.append(rows[groups.rows_of(np.array(order[num_validation:], np.int64))])
    for_train, for_validation = map(np.concatenate, (train, validation))
    if not len(for_validation):
        raise DataError("channel 'train': one photo per class leaves none for validation; add photos")
    return samples.select(for_train), samples.select(for_validation)

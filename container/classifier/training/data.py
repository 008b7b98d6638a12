"""Channels → the photos to train, validate and test on."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from classifier.contract.config import TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import DataError
from classifier.training.console import Console, Watch
from classifier.training.folders import ChannelFolder, check_same_classes, class_labels, list_channel
from classifier.training.scan import (
    Leak,
    Sample,
    Survey,
    check_bad_share,
    find_leaks,
    fingerprint,
    scan_channel,
    write_bad_images,
    write_leaks,
)
from classifier.vision.images import tolerate_truncated_images
from classifier.vision.manifest import ClassLabel

_PHOTO_CHANNELS = ("train", "validation", "test")
_NUM_NAMED = 5  # how many examples a warning names


@dataclass(frozen=True)
class Data:
    """What a training works on. ``classes`` is in the order of the logits."""

    classes: tuple[ClassLabel, ...]
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    fingerprint: str

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Each channel's number of photos of each class, in the order of ``classes``; without channels of none."""
        channels = {"train": self.train, "validation": self.validation, "test": self.test}
        numbers = {name: Counter(sample.label for sample in samples) for name, samples in channels.items() if samples}
        return {name: tuple(counter[label] for label in range(len(self.classes))) for name, counter in numbers.items()}


def list_channels(config: TrainingConfig, paths: Paths) -> tuple[ChannelFolder, ...]:
    """The channels of photos, ``train`` first, all with the same classes.

    Raises:
        DataError: a channel's folder is missing or empty, has one class, or other classes than ``train``.
    """
    folders = tuple(list_channel(name, paths.channel(name)) for name in _PHOTO_CHANNELS if name in config.channels)
    train, *others = folders
    if len(train.files) < 2:
        only = next(iter(train.files))
        raise DataError(f"channel 'train' holds one class, {only!r}; telling photos apart takes at least two")
    for other in others:
        check_same_classes(train, other)
    return folders


def load_data(
    folders: Sequence[ChannelFolder], parameters: Hyperparameters, output: Path, executor: Executor, watch: Watch
) -> Data:
    """Look through every photo of every channel, and say what was found.

    Raises:
        DataError: too many photos of a channel, or all of a class, can't be read.
        Stopped: the platform asked to stop.
    """
    tolerate_truncated_images(parameters.truncated_images == "load")
    surveys = {survey.channel: survey for survey in _survey(folders, executor, watch)}
    _report(surveys, parameters.max_bad_images, output, watch.console)
    classes = class_labels(list(folders[0].files))
    _check_every_class_has_photos(classes, surveys["train"])
    train = surveys["train"].samples
    if "validation" in surveys:
        validation = surveys["validation"].samples
    else:
        train, validation = split(train, parameters.validation_split, parameters.seed)
    test = surveys["test"].samples if "test" in surveys else []
    return Data(classes, train, validation, test, fingerprint(surveys.values()))


def _survey(folders: Sequence[ChannelFolder], executor: Executor, watch: Watch) -> list[Survey]:
    total = sum(len(files) for folder in folders for files in folder.files.values())
    with watch.progress("checking the photos", total) as advance:
        return [scan_channel(folder, executor, advance) for folder in folders]


def _report(surveys: dict[str, Survey], max_bad_share: float, output: Path, console: Console) -> None:
    listing = output / "bad_images.csv"
    write_bad_images(listing, surveys.values())
    for survey in surveys.values():
        check_bad_share(survey, max_bad_share, listing)
        if survey.bad:
            named = _name([f"{bad.name} ({bad.reason})" for bad in survey.bad])
            console.warn(f"channel {survey.channel!r}: unreadable photos, left out: {len(survey.bad)} ({named})")
        if survey.strays:
            named = _name([path.name for path in survey.strays])
            console.warn(f"channel {survey.channel!r}: files that are no photos: {len(survey.strays)} ({named})")
    leaks = find_leaks(list(surveys.values()))
    if leaks:
        write_leaks(output / "leaks.csv", leaks)
        console.warn(
            f"photos that lie in two channels, which makes the figures look better than they are: {len(leaks)} "
            f"({_name([_describe_leak(leak) for leak in leaks])}); all are listed in {output / 'leaks.csv'}"
        )


def _describe_leak(leak: Leak) -> str:
    return f"{leak.second_channel}/{leak.second} is {leak.first_channel}/{leak.first}"


def _name(items: list[str]) -> str:
    more = f" and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return "; ".join(items[:_NUM_NAMED]) + more


def _check_every_class_has_photos(classes: Sequence[ClassLabel], train: Survey) -> None:
    present = {sample.label for sample in train.samples}
    empty = [item.folder for label, item in enumerate(classes) if label not in present]
    if empty:
        raise DataError(
            f"channel 'train': no readable photo in {', '.join(map(repr, empty))}; add some or drop the folder"
        )


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """A stratified, seeded split: the larger part, and ``share`` of every class that has at least two photos.

    Photos with the same bytes stay on one side.

    Raises:
        DataError: no class has two photos.
    """
    by_class: dict[int, dict[bytes, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        by_class[sample.label][sample.digest].append(sample)
    generator = random.Random(seed)
    kept: list[Sample] = []
    apart: list[Sample] = []
    for label in sorted(by_class):
        groups = [by_class[label][digest] for digest in sorted(by_class[label])]
        generator.shuffle(groups)
        num_apart = min(max(1, round(share * len(groups))), len(groups) - 1)
        for group in groups[:num_apart]:
            apart += group
        for group in groups[num_apart:]:
            kept += group
    if not apart:
        raise DataError("channel 'train' has one photo a class: nothing can be set apart for validation; add photos")
    return kept, apart

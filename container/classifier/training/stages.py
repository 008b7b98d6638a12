"""What is gone through in each stage of a training: photos and the whole classifier, or features and its head."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from torch import nn

from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, Batches, PhotoBatches, in_order
from classifier.training.console import Watch
from classifier.training.data import Data
from classifier.training.features import FeatureBatches, compute_features, freeze_backbone, head_comes_last
from classifier.training.precision import Precision
from classifier.training.scan import Sample
from classifier.vision.artifact import Classifier
from classifier.vision.preprocessing import Preprocessing


class Stage(NamedTuple):
    """Batches, and the module that turns their inputs into logits."""

    module: nn.Module
    batches: Batches


class Stages(NamedTuple):
    """``trained`` is the part of the modules that learns."""

    train: Stage
    validation: Stage
    trained: nn.Module


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How photos are read; ``executor`` is None to decode between the steps."""

    preprocessing: Preprocessing
    batch_size: int
    executor: Executor | None
    num_workers: int
    pin: bool

    def photos(self, samples: Sequence[Sample], *, augmentation: str = "none") -> PhotoBatches:
        return PhotoBatches(
            samples=samples,
            preprocessing=self.preprocessing,
            batch_size=self.batch_size,
            augmentation=PRESETS[augmentation],
            executor=self.executor,
            num_workers=self.num_workers,
            pin=self.pin,
        )


def whole_stages(classifier: Classifier, data: Data, reader: Reader, augmentation: str) -> Stages:
    """Everything learns, from photos."""
    train = reader.photos(data.train, augmentation=augmentation)
    return Stages(Stage(classifier, train), Stage(classifier, reader.photos(data.validation)), classifier)


def frozen_stages(
    classifier: Classifier, data: Data, reader: Reader, augmentation: str, precision: Precision, watch: Watch
) -> Stages:
    """Only the head learns, and from features computed once wherever every epoch would compute the same ones.

    Those of ``validation`` always are; those of ``train`` are when nothing, or only mirroring, is left to chance.
    """
    head = freeze_backbone(classifier.network)
    stages = whole_stages(classifier, data, reader, augmentation)._replace(trained=head)
    if not head_comes_last(classifier, reader.preprocessing.crop):
        return stages

    def features(samples: Sequence[Sample], *, mirrored: bool) -> Stage:
        photos = reader.photos(samples)
        with watch.progress("computing features", ceil(len(samples) / reader.batch_size)) as advance:
            computed = compute_features(classifier, _counted(in_order(photos), advance), precision, mirrored=mirrored)
        return Stage(head, FeatureBatches(*computed, reader.batch_size))

    stages = stages._replace(validation=features(data.validation, mirrored=False))
    if augmentation in ("none", "flip"):
        stages = stages._replace(train=features(data.train, mirrored=augmentation == "flip"))
    return stages


def _counted(batches: Iterator[Batch], advance: Callable[[], object]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance()

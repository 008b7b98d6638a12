"""Modules and data of a training: the whole network on photos, or its head on cached features."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, BatchLoader, ImageLoader, load_in_order
from classifier.training.console import Progress
from classifier.training.data import Data
from classifier.training.features import FeatureLoader, compute_features, freeze_backbone, is_head_last
from classifier.training.plan import num_batches
from classifier.training.precision import Precision
from classifier.training.samples import SampleTable
from classifier.vision.artifact import Classifier
from classifier.vision.preprocessing import Preprocessing


class Stage(NamedTuple):
    """A data set, and the module that turns its inputs into logits."""

    module: nn.Module
    loader: BatchLoader


class Stages(NamedTuple):
    """Training and validation; ``trained`` is the part of their modules whose parameters are trained."""

    train: Stage
    validation: Stage
    trained: nn.Module


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How photos are loaded.

    Attributes:
        executor: decodes photos ahead of the training; None decodes them between the steps.
        num_workers: the executor's number of threads.
        pin: allocate pixels in page-locked memory, from which a GPU copies asynchronously.
    """

    preprocessing: Preprocessing
    batch_size: int
    executor: Executor | None
    num_workers: int
    pin: bool

    def images(self, samples: SampleTable, *, augmentation: str = "none") -> ImageLoader:
        """Return a loader of the samples; ``augmentation`` names a preset."""
        return ImageLoader(
            samples=samples,
            preprocessing=self.preprocessing,
            augmentation=PRESETS[augmentation],
            executor=self.executor,
            num_workers=self.num_workers,
            pin=self.pin,
        )


def full_stages(classifier: Classifier, data: Data, loading: LoaderConfig, augmentation: str) -> Stages:
    """Train the whole network on photos."""
    train = loading.images(data.train, augmentation=augmentation)
    return Stages(Stage(classifier, train), Stage(classifier, loading.images(data.validation)), classifier)


def frozen_stages(
    classifier: Classifier,
    data: Data,
    loading: LoaderConfig,
    augmentation: str,
    precision: Precision,
    progress: Progress,
) -> Stages:
    """Train the head alone, on features that are computed once wherever every epoch would compute the same ones.

    That is always so for ``validation``, and for ``train`` if photos are mirrored at most.
    """
    head = freeze_backbone(classifier.network)
    stages = full_stages(classifier, data, loading, augmentation)._replace(trained=head)
    if not is_head_last(classifier, loading.preprocessing.crop):
        return stages

    def features(samples: SampleTable, *, mirrored: bool) -> Stage:
        batches = load_in_order(loading.images(samples), loading.batch_size)
        with progress.track("computing features", num_batches(len(samples), loading.batch_size)) as advance:
            computed = compute_features(classifier, _counted(batches, advance), precision, mirrored=mirrored)
        return Stage(head, FeatureLoader(*computed, pin=loading.pin))

    stages = stages._replace(validation=features(data.validation, mirrored=False))
    if augmentation in ("none", "flip"):
        stages = stages._replace(train=features(data.train, mirrored=augmentation == "flip"))
    return stages


def _counted(batches: Iterator[Batch], advance: Callable[[], object]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance()

"""Modules and data of a training: the whole network on photos, or its head on cached features."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, BatchLoader, ImageLoader
from classifier.training.console import Progress
from classifier.training.data import Data
from classifier.training.features import FeatureLoader, compute_features, freeze_backbone, is_head_last
from classifier.training.plan import EpochPlan, in_order
from classifier.training.precision import Precision
from classifier.training.samples import SampleTable
from classifier.training.stopping import SharedStop
from classifier.vision.artifact import Classifier
from classifier.vision.preprocessing import Preprocessing


class Stage(NamedTuple):
    """A data set, and the module that turns its inputs into logits.

    Attributes:
        is_shared: whether all ranks work on it; else rank 0 does alone, and the loader of the others is empty.
    """

    module: nn.Module
    loader: BatchLoader
    is_shared: bool = True


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
    stop: SharedStop,
) -> Stages:
    """Train the head alone, on features that are computed once wherever every epoch would compute the same ones.

    That is always so for ``validation``, and for ``train`` if photos are mirrored at most. Ranks compute a share of the
    features each; with the features, an epoch is short enough for one rank.
    """
    head, group = freeze_backbone(classifier.network), stop.group
    stages = full_stages(classifier, data, loading, augmentation)._replace(trained=head)
    if not is_head_last(classifier, loading.preprocessing.crop):
        return stages

    def features(samples: SampleTable, *, mirrored: bool) -> Stage:
        batch_size = max(EpochPlan.share_sizes(loading.batch_size, group.world_size))
        # Without a share, an empty batch: its features have the same shape as those of the other ranks.
        share = list(in_order(len(samples), batch_size, group.rank, group.world_size)) or [np.arange(0)]
        batches = loading.images(samples).iterate(share, seed=0, epoch=0)
        with stop.agreement(), progress.track("computing features", len(share)) as advance:
            computed = compute_features(classifier, _counted(batches, advance), precision, mirrored=mirrored)
        gathered = [group.gather_rows(tensor) for tensor in computed]
        return Stage(head, FeatureLoader(*gathered, pin=loading.pin), is_shared=False)

    stages = stages._replace(validation=features(data.validation, mirrored=False))
    if augmentation in ("none", "flip"):
        stages = stages._replace(train=features(data.train, mirrored=augmentation == "flip"))
    return stages


def _counted(batches: Iterator[Batch], advance: Callable[[], object]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance()

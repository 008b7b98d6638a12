"""Samples → batches. Photos are read and decoded by threads, straight into the batch's memory.

Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes, and threads need no shared
memory (64 MB in many containers), no copies between processes and no time to start.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from classifier.errors import DataError, ImageError
from classifier.training.augmentation import PRESETS, Augmentation, random_crop
from classifier.training.scan import Sample
from classifier.vision.preprocessing import Preprocessing


class Batch(NamedTuple):
    """``inputs``: uint8 pixels (N, 3, S, S) in channels-last memory, or features (N, …); ``labels``: int64 (N,)."""

    inputs: Tensor
    labels: Tensor


class Batches(Protocol):
    """A data set that can be gone through many times."""

    def __len__(self) -> int:
        """The number of items, not of batches."""
        ...

    def iterate(self, order: Sequence[int], *, seed: int) -> Iterator[Batch]: ...


def in_order(batches: Batches) -> Iterator[Batch]:
    """Every item once, in the data set's own order."""
    return batches.iterate(range(len(batches)), seed=0)


def shuffled(count: int, batch_size: int, *, seed: int) -> list[int]:
    """A random order of all items. A last batch of one is dropped: batch normalisation can't take it."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return order[:-1] if count > 1 and count % batch_size == 1 else order


def num_steps(count: int, batch_size: int) -> int:
    """The number of batches of an epoch in :func:`shuffled` order."""
    return max(1, math.ceil(count / batch_size) - (count % batch_size == 1))


@dataclass(frozen=True)
class PhotoBatches:
    """Photos from the disk; with an ``augmentation`` that crops, other pixels every time.

    ``executor`` is None to decode between the steps. ``pin`` puts the pixels where a GPU can fetch them by itself.
    """

    samples: Sequence[Sample]
    preprocessing: Preprocessing
    batch_size: int
    augmentation: Augmentation = PRESETS["none"]
    executor: Executor | None = None
    num_workers: int = 1
    pin: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    def iterate(self, order: Sequence[int], *, seed: int) -> Iterator[Batch]:
        """Batches in the given order. Enough are under way ahead of the caller to keep every thread busy.

        Raises:
            DataError: a photo that could be read before no longer can.
        """
        chunks = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        ahead = 1 + math.ceil(2 * self.num_workers / self.batch_size) if self.executor else 0
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for chunk in chunks:
                pending.append(self._start(chunk, seed))
                if len(pending) > ahead:
                    yield _finish(*pending.popleft())
            while pending:
                yield _finish(*pending.popleft())
        finally:
            for _, tasks in pending:
                for task in tasks:
                    task.cancel()

    def _start(self, chunk: Sequence[int], seed: int) -> tuple[Batch, list[Future[None]]]:
        side = self.preprocessing.crop
        pixels = torch.empty(len(chunk), side, side, 3, dtype=torch.uint8, pin_memory=self.pin)
        labels = torch.tensor([self.samples[index].label for index in chunk])
        rows = pixels.numpy()
        tasks = [self._submit(self._fill, rows[place], index, seed) for place, index in enumerate(chunk)]
        return Batch(pixels.permute(0, 3, 1, 2), labels), tasks

    def _submit(self, function: Callable[..., None], *arguments: object) -> Future[None]:
        if self.executor is not None:
            return self.executor.submit(function, *arguments)
        done: Future[None] = Future()
        done.set_result(function(*arguments))
        return done

    def _fill(self, row: np.ndarray, index: int, seed: int) -> None:
        sample = self.samples[index]
        try:
            data = sample.path.read_bytes()
            if self.augmentation.min_area < 1:
                rng = np.random.default_rng((seed, index))
                row[:] = random_crop(data, self.preprocessing, self.augmentation.min_area, rng)
            else:
                row[:] = self.preprocessing.pixels_of(data)
        except (OSError, ImageError) as error:
            raise DataError(f"{sample.path} could be read when the job began and now can't: {error}") from None


def _finish(batch: Batch, tasks: list[Future[None]]) -> Batch:
    wait(tasks)
    for task in tasks:
        task.result()
    return batch

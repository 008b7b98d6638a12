"""Batches of photos, decoded by threads directly into the batch's memory.

Threads, not processes: Pillow releases the GIL while it decodes and resizes, and threads need no shared memory (64 MB
in many containers), no copies between processes and no start-up time.
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


class BatchLoader(Protocol):
    """A data set that can be iterated over many times, in any order."""

    def __len__(self) -> int:
        """Return the number of samples, not of batches."""
        ...

    def iterate(self, order: Sequence[int], *, seed: int) -> Iterator[Batch]:
        """Yield batches of the samples with the indices ``order``; ``seed`` determines their augmentation."""
        ...


def in_order(loader: BatchLoader) -> Iterator[Batch]:
    """Yield every sample once, in the data set's own order."""
    return loader.iterate(range(len(loader)), seed=0)


def shuffled_order(num_samples: int, batch_size: int, *, seed: int) -> list[int]:
    """Return the indices of all samples in random order.

    One sample is dropped if it would be a batch of its own, which batch normalization can't process.
    """
    order = np.random.default_rng(seed).permutation(num_samples).tolist()
    return order[:-1] if num_samples > 1 and num_samples % batch_size == 1 else order


def num_steps(num_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch in :func:`shuffled_order`."""
    return max(1, math.ceil(num_samples / batch_size) - (num_samples % batch_size == 1))


@dataclass(frozen=True)
class ImageLoader:
    """Loads batches of photos from disk.

    Attributes:
        augmentation: a preset that crops changes the pixels with every seed.
        executor: decodes photos ahead of the training; None decodes them on the calling thread.
        num_workers: the executor's number of threads.
        pin: allocate pixels in page-locked memory, from which a GPU copies asynchronously.
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
        """Yield batches in the given order, decoding far enough ahead of the caller to keep every thread busy.

        Raises:
            DataError: a photo that was readable when the job began no longer is.
        """
        chunks = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        num_ahead = 1 + math.ceil(2 * self.num_workers / self.batch_size) if self.executor else 0
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for chunk in chunks:
                pending.append(self._start(chunk, seed))
                if len(pending) > num_ahead:
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
        tasks = [self._submit(self._read_into, rows[row], index, seed) for row, index in enumerate(chunk)]
        return Batch(pixels.permute(0, 3, 1, 2), labels), tasks

    def _submit(self, function: Callable[..., None], *arguments: object) -> Future[None]:
        if self.executor is not None:
            return self.executor.submit(function, *arguments)
        done: Future[None] = Future()
        done.set_result(function(*arguments))
        return done

    def _read_into(self, row: np.ndarray, index: int, seed: int) -> None:
        sample = self.samples[index]
        try:
            data = sample.path.read_bytes()
            if self.augmentation.min_area < 1:
                rng = np.random.default_rng((seed, index))
                row[:] = random_crop(data, self.preprocessing, self.augmentation.min_area, rng)
            else:
                row[:] = self.preprocessing.pixels_of(data)
        except (OSError, ImageError) as error:
            raise DataError(
                f"{sample.path} was readable when the job began and no longer is: {error}; "
                "do not change a channel while a job reads it"
            ) from None


def _finish(batch: Batch, tasks: list[Future[None]]) -> Batch:
    wait(tasks)
    for task in tasks:
        task.result()
    return batch

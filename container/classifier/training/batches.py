"""Batches of photos, decoded by threads directly into the batch's memory.

Threads, not processes: Pillow releases the GIL while it decodes and resizes, and threads need no shared memory (64 MB
in many containers), no copies between processes and no start-up time.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from classifier.errors import DataError, ImageError
from classifier.training.augmentation import PRESETS, Augmentation, random_crop
from classifier.training.plan import draws, in_order, nth_part
from classifier.training.samples import SampleTable
from classifier.training.streaming import WindowReader
from classifier.vision.preprocessing import Preprocessing

_PHOTOS_A_TASK = 8


class Batch(NamedTuple):
    """Inputs and labels of a step.

    Attributes:
        inputs: uint8 pixels (N, 3, S, S) in channels-last memory, or features (N, …).
        labels: int64 (N,).
        draws: of :func:`~classifier.training.plan.draws`, float32 (N, NUM_DRAWS), for the augmentation on the device;
            None where there is none.
    """

    inputs: Tensor
    labels: Tensor
    draws: Tensor | None = None


class BatchLoader(Protocol):
    """A data set that can be iterated over many times, in any order."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def iterate(self, batches: Iterable[np.ndarray], *, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield a batch for each array of indices; ``seed`` and ``epoch`` determine the samples' augmentation."""
        ...


def load_in_order(loader: BatchLoader, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """Yield every sample of a rank's share once, in the data set's own order."""
    return loader.iterate(in_order(len(loader), batch_size, rank, world_size), seed=0, epoch=0)


@dataclass(frozen=True)
class ImageLoader:
    """Loads batches of photos from disk.

    Attributes:
        augmentation: a preset that crops changes the pixels in every epoch.
        executor: decodes photos ahead of the training; None decodes them on the calling thread.
        num_workers: the executor's number of threads.
        pin: allocate batches in page-locked memory, from which a GPU copies asynchronously.
    """

    samples: SampleTable
    preprocessing: Preprocessing
    augmentation: Augmentation = PRESETS["none"]
    executor: Executor | None = None
    num_workers: int = 1
    pin: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    def iterate(self, batches: Iterable[np.ndarray], *, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield batches in the given order, decoding far enough ahead of the caller to keep every thread busy.

        Raises:
            DataError: a photo that was readable when the job began no longer is.
        """
        order = self.samples.shard_order
        reader = None if order is None else WindowReader(self.samples, order, self.executor, seed=seed, epoch=epoch)
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for indices in batches:
                read = reader.prepare(indices) if reader else self.samples.read
                pending.append(self._start(indices, seed, epoch, read))
                if len(pending) > self._num_ahead(len(indices)):
                    yield _finish(*pending.popleft())
            while pending:
                yield _finish(*pending.popleft())
        finally:
            for _, tasks in pending:
                for task in tasks:
                    task.cancel()
            if reader:
                reader.close()

    def _num_tasks(self, batch_size: int) -> int:
        """Return the number of tasks of a batch: one a photo would cost the interpreter more than it gains."""
        return max(1, -(-batch_size // _PHOTOS_A_TASK), min(batch_size, self.num_workers))

    def _num_ahead(self, batch_size: int) -> int:
        """Return the number of batches to decode ahead of the one that the caller has."""
        return 1 + math.ceil(2 * self.num_workers / self._num_tasks(batch_size)) if self.executor else 0

    def _start(
        self, indices: np.ndarray, seed: int, epoch: int, read: Callable[[int], bytes]
    ) -> tuple[Batch, list[Future[None]]]:
        count, side = len(indices), self.preprocessing.crop
        pixels = torch.empty(count, side, side, 3, dtype=torch.uint8, pin_memory=self.pin)
        labels = self._copy(self.samples.labels_of(indices).astype(np.int64))
        drawn = draws(seed, epoch, indices)
        rows, num_tasks = pixels.numpy(), self._num_tasks(count)
        tasks = [
            self._submit(self._read_into, *(nth_part(one, number, num_tasks) for one in (rows, indices, drawn)), read)
            for number in range(num_tasks)
        ]
        on_device = self._copy(drawn) if self.augmentation.changes_batches else None
        return Batch(pixels.permute(0, 3, 1, 2), labels, on_device), tasks

    def _copy(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.pin else tensor

    def _submit(self, function: Callable[..., None], *arguments: object) -> Future[None]:
        if self.executor is not None:
            return self.executor.submit(function, *arguments)
        done: Future[None] = Future()
        done.set_result(function(*arguments))
        return done

    def _read_into(
        self, rows: np.ndarray, indices: np.ndarray, drawn: np.ndarray, read: Callable[[int], bytes]
    ) -> None:
        for row, index, draw in zip(rows, indices.tolist(), drawn, strict=True):
            try:
                data = read(index)
                if self.augmentation.min_area < 1:
                    row[:] = random_crop(data, self.preprocessing, self.augmentation.min_area, draw)
                else:
                    row[:] = self.preprocessing.pixels_of(data)
            except (OSError, ImageError) as error:
                raise DataError(
                    f"{self.samples[index].path} was readable when the job began and no longer is: {error}; "
                    "do not change a channel while a job reads it"
                ) from None


def _finish(batch: Batch, tasks: list[Future[None]]) -> Batch:
    wait(tasks)
    for task in tasks:
        task.result()
    return batch

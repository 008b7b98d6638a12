"""Greedy dynamic batching: a batch is dispatched as soon as a slot is free, and photos accumulate while none is.

A lone photo never waits. A batch takes whatever was queued while the engine was busy, up to the engine's largest batch.
Photos whose caller has disconnected are dropped before they cost any computation.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from classifier.engine.base import Engine
from classifier.serving.errors import BusyError, DeadlineError


@dataclass(eq=False)
class PendingRequest:
    """One photo, uint8 or float32 (S, S, 3), that waits for its logits."""

    pixels: np.ndarray
    is_wanted: Callable[[], bool]
    # Held until the result is set: cheaper than an Event, which consists of a lock and a list of further locks.
    _pending: threading.Lock = field(default_factory=threading.Lock)
    logits: np.ndarray | None = None
    error: Exception | None = None
    queued_s: float = 0.0
    submitted: float = 0.0

    def __post_init__(self) -> None:
        self._pending.acquire()

    def set_result(self, *, logits: np.ndarray | None = None, error: Exception | None = None) -> None:
        """Set the logits, float32 (num_classes,), or the error, and wake up the caller."""
        self.logits, self.error = logits, error
        self._pending.release()

    def result(self, timeout_s: float) -> np.ndarray:
        """Wait for the logits and return them, float32 (num_classes,).

        Raises:
            DeadlineError: they were not available within ``timeout_s``.
            Exception: the engine's error, where it failed.
        """
        if not self._pending.acquire(timeout=timeout_s):
            raise DeadlineError("the model did not reach this request in time")
        if self.error is not None:
            raise self.error
        assert self.logits is not None
        return self.logits


class Batcher:
    """One thread per slot of the engine; all of them take batches from one queue.

    Args:
        engine: runs the batches; closed with the batcher.
        capacity: largest number of photos in the queue.
        observe: called with the size and the duration in seconds of each successful batch.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        capacity: int,
        observe: Callable[[int, float], None] = lambda _size, _seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._capacity = capacity
        self._observe = observe
        self._clock = clock
        self._queue: deque[PendingRequest] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._is_broken = False
        self._busy_since: list[float | None] = [None] * engine.num_slots
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"slot-{slot}", daemon=True)
            for slot in range(engine.num_slots)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Number of photos in the queue."""
        return len(self._queue)

    def submit(self, requests: list[PendingRequest]) -> None:
        """Queue all of the photos or none.

        Raises:
            BusyError: they exceed the queue's capacity, or the batcher is closed.
        """
        with self._changed:
            if self._closed or len(self._queue) + len(requests) > self._capacity:
                raise BusyError("the queue is full")
            now = self._clock()
            for request in requests:
                request.submitted = now
                self._queue.append(request)
            self._changed.notify(min(len(requests), len(self._threads)))

    def is_answering(self, within_s: float) -> bool:
        """Whether the engine works, every slot's thread is alive, and none has run one batch longer than ``within_s``.

        Takes no lock, so it can't be delayed by a stuck engine.
        """
        oldest = min((since for since in self._busy_since if since is not None), default=self._clock())
        is_moving = self._clock() - oldest <= within_s and all(thread.is_alive() for thread in self._threads)
        return is_moving and not self._is_broken

    def close(self) -> None:
        """Answer what is queued, then stop the threads and close the engine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._engine.close()

    def _run(self, slot: int) -> None:
        while batch := self._take():
            self._busy_since[slot] = self._clock()
            self._infer(slot, batch)
            self._busy_since[slot] = None

    def _take(self) -> list[PendingRequest]:
        """Wait for the next batch; an empty one when the batcher is closed and the queue is empty."""
        with self._changed:
            while True:
                batch = self._collect()
                if batch or self._closed:
                    return batch
                self._changed.wait()

    def _collect(self) -> list[PendingRequest]:
        batch: list[PendingRequest] = []
        while self._queue and len(batch) < self._engine.max_batch:
            # A batch is one array, so uint8 photos and float tensors go into separate batches.
            if batch and self._queue[0].pixels.dtype != batch[0].pixels.dtype:
                break
            request = self._queue.popleft()
            if request.is_wanted():
                batch.append(request)
            else:
                request.set_result(error=DeadlineError("the caller has disconnected"))
        return batch

    def _infer(self, slot: int, batch: list[PendingRequest]) -> None:
        start = self._clock()
        for request in batch:
            request.queued_s = start - request.submitted
        try:
            logits = self._engine.infer(slot, _stack(batch))
        except Exception as error:
            # Whatever the engine raises, the thread survives, and the waiting callers get the error.
            self._is_broken = not self._can_infer(slot, np.zeros_like(_stack(batch[:1])))
            for request in batch:
                request.set_result(error=error)
            return
        self._is_broken = False
        for request, row in zip(batch, logits, strict=True):
            request.set_result(logits=row)
        self._observe(len(batch), self._clock() - start)

    def _can_infer(self, slot: int, pixels: np.ndarray) -> bool:
        """Whether the engine still works, which tells a lost GPU from one bad input."""
        try:
            self._engine.infer(slot, pixels)
        except Exception:
            return False
        return True


def _stack(batch: list[PendingRequest]) -> np.ndarray:
    return batch[0].pixels[None] if len(batch) == 1 else np.stack([request.pixels for request in batch])

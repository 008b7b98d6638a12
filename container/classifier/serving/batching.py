"""Requests → batches, greedily: dispatch when a lane is free, collect while none is.

A lone photo never waits. A batch takes whatever gathered while the engine was busy, up to the largest that pays. Photos
whose caller has gone are dropped before they cost anything.
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
class Ticket:
    """One photo on its way through the engine."""

    pixels: np.ndarray
    is_wanted: Callable[[], bool]
    # Held until the ticket is settled: lighter than an Event, which is a lock and a list of others, in Python.
    _unsettled: threading.Lock = field(default_factory=threading.Lock)
    logits: np.ndarray | None = None
    error: Exception | None = None
    queued_s: float = 0.0
    submitted: float = 0.0

    def __post_init__(self) -> None:
        self._unsettled.acquire()

    def settle(self, *, logits: np.ndarray | None = None, error: Exception | None = None) -> None:
        self.logits, self.error = logits, error
        self._unsettled.release()

    def result(self, timeout_s: float) -> np.ndarray:
        """The logits, float32 (num_classes,).

        Raises:
            DeadlineError: they did not come in time.
        """
        if not self._unsettled.acquire(timeout=timeout_s):
            raise DeadlineError("the model did not reach this request in time")
        if self.error is not None:
            raise self.error
        assert self.logits is not None
        return self.logits


class Batcher:
    """Threads, one a lane, that take batches from one queue."""

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
        self._queue: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._is_broken = False
        self._busy_since: list[float | None] = [None] * engine.num_lanes
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"lane-{lane}", daemon=True)
            for lane in range(engine.num_lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Photos that wait for a lane."""
        return len(self._queue)

    def submit(self, tickets: list[Ticket]) -> None:
        """Queue photos, all or none.

        Raises:
            BusyError: they would not fit.
        """
        with self._changed:
            if self._closed or len(self._queue) + len(tickets) > self._capacity:
                raise BusyError("the queue is full")
            now = self._clock()
            for ticket in tickets:
                ticket.submitted = now
                self._queue.append(ticket)
            self._changed.notify(min(len(tickets), len(self._threads)))

    def is_answering(self, within_s: float) -> bool:
        """Whether the engine works, every lane lives, and none has been at one batch for longer than ``within_s``."""
        oldest = min((since for since in self._busy_since if since is not None), default=self._clock())
        is_moving = self._clock() - oldest <= within_s and all(thread.is_alive() for thread in self._threads)
        return is_moving and not self._is_broken

    def close(self) -> None:
        """Answer what is queued, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._engine.close()

    def _run(self, lane: int) -> None:
        while batch := self._take():
            self._busy_since[lane] = self._clock()
            self._answer(lane, batch)
            self._busy_since[lane] = None

    def _take(self) -> list[Ticket]:
        """The next batch, or nothing when closed and empty."""
        with self._changed:
            while True:
                batch = self._collect()
                if batch or self._closed:
                    return batch
                self._changed.wait()

    def _collect(self) -> list[Ticket]:
        batch: list[Ticket] = []
        while self._queue and len(batch) < self._engine.max_batch:
            # uint8 photos and float tensors go through different doors of the engine.
            if batch and self._queue[0].pixels.dtype != batch[0].pixels.dtype:
                break
            ticket = self._queue.popleft()
            if ticket.is_wanted():
                batch.append(ticket)
            else:
                ticket.settle(error=DeadlineError("the caller has gone"))
        return batch

    def _answer(self, lane: int, batch: list[Ticket]) -> None:
        start = self._clock()
        for ticket in batch:
            ticket.queued_s = start - ticket.submitted
        try:
            logits = self._engine.infer(lane, _stack(batch))
        except Exception as error:
            # Whatever the engine raises, the lane lives on, and those who wait learn of it.
            self._is_broken = not self._infers(lane, np.zeros_like(_stack(batch[:1])))
            for ticket in batch:
                ticket.settle(error=error)
            return
        self._is_broken = False
        for ticket, row in zip(batch, logits, strict=True):
            ticket.settle(logits=row)
        self._observe(len(batch), self._clock() - start)

    def _infers(self, lane: int, pixels: np.ndarray) -> bool:
        """Whether the engine can still answer anything: one that lost its GPU can't, one that met a bad input can."""
        try:
            self._engine.infer(lane, pixels)
        except Exception:
            return False
        return True


def _stack(batch: list[Ticket]) -> np.ndarray:
    return batch[0].pixels[None] if len(batch) == 1 else np.stack([ticket.pixels for ticket in batch])

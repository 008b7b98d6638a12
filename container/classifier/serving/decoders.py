"""The right to decode: as many photos at once as there are cores, and always room for a small one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from classifier.serving.errors import BusyError, DeadlineError

# A photo that needs more than this share of the limit is large.
LARGE_SHARE = 1 / 4


@dataclass(eq=False)
class _Waiter:
    is_large: bool
    granted: threading.Event = field(default_factory=threading.Event)


class Decoders:
    """Slots for decoding, granted in the order of arrival.

    Large photos leave one slot to small ones, which therefore never wait for a large one to end, and the memory for
    large photos is bounded: ``num_slots - 1`` times the limit.

    Args:
        num_cores: more decoders would only take turns, and each holds a decoded photo.
        max_decoded: the limit of a decoded photo, in bytes.
        max_waiting: the number of large photos that may wait; each of them keeps a request's thread.
    """

    def __init__(self, num_cores: int, *, max_decoded: int, max_waiting: int) -> None:
        self.num_slots = max(num_cores, 2)
        self._large_bytes = max_decoded * LARGE_SHARE
        self._max_waiting = max_waiting
        self._free = self.num_slots
        self._free_large = self.num_slots - 1
        self._waiters: list[_Waiter] = []
        self._lock = threading.Lock()

    @property
    def depth(self) -> int:
        """Number of photos that wait for a slot."""
        return len(self._waiters)

    @contextmanager
    def slot(self, num_bytes: int, timeout_s: float) -> Iterator[None]:
        """Hold a slot while a photo is decoded.

        Args:
            num_bytes: the memory that decoding needs.

        Raises:
            BusyError: it is a large photo, and many of those wait already.
            DeadlineError: no slot was free in time.
        """
        waiter = _Waiter(num_bytes > self._large_bytes)
        self._enqueue(waiter)
        if not waiter.granted.wait(timeout_s):
            self._withdraw(waiter)
        try:
            yield
        finally:
            self._release(waiter)

    def _enqueue(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.append(waiter)
            self._grant()
            if waiter.is_large and sum(one.is_large for one in self._waiters) > self._max_waiting:
                self._waiters.pop()
                raise BusyError("many large photos wait to be decoded")

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            # It may have been granted since the wait ended.
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                raise DeadlineError("no core was free in time to decode the image")

    def _release(self, waiter: _Waiter) -> None:
        with self._lock:
            self._free += 1
            self._free_large += waiter.is_large
            self._grant()

    def _grant(self) -> None:
        for waiter in list(self._waiters):
            if self._free and (self._free_large or not waiter.is_large):
                self._free -= 1
                self._free_large -= waiter.is_large
                self._waiters.remove(waiter)
                waiter.granted.set()

"""The stop of a training, at which all its ranks end at the same step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from classifier.callbacks import Callback, CallbackList
from classifier.errors import Stopped
from classifier.training.console import StopCheck
from classifier.training.group import Group

_LOOK_S = 0.5  # between two looks at what the other ranks have published


class SharedStop:
    """The stop that any rank of a group requests for all of them.

    A rank that raised :class:`Stopped` while another goes on would leave it waiting for a sum of gradients. So work is
    divided into agreements, which all ranks leave alike, and into steps, which they stop at together.

    Args:
        signal: this rank's own.
        name: under which the ranks publish; another one for each stop of a group.

    Attributes:
        group: the ranks.
    """

    def __init__(self, signal: StopCheck, group: Group, name: str = "stop") -> None:
        self.group = group
        self._signal, self._name = signal, name
        self._requested = False
        self._num_agreements = 0
        self._in_steps = False
        self._answer: Callable[[], bool] | None = None
        self._looked_s = 0.0

    @property
    def received(self) -> str | None:
        """The name of the signal that this rank received."""
        return self._signal.received

    def request(self, reason: str) -> None:
        """Request that all ranks stop."""
        if not self._requested:
            self.group.publish(self._name, reason)
            self._requested = True

    def check(self) -> None:
        """Raise if a stop was requested: between two steps, on all ranks at the same one; else as soon as it is known.

        Raises:
            Stopped: with the reason.
        """
        if self.group.is_alone:
            self._signal.check()
            return
        self._take_signal()
        if self._in_steps:
            self._check_step()
        elif self._requested or time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            self._raise_published()

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Enclose work that ranks do on their own, and wait for all of them at its end, however long it takes.

        Raises:
            Stopped: on every rank, if a stop was requested on any.
        """
        if self.group.is_alone:
            yield
            return
        try:
            yield
        except Stopped as stopped:
            self.request(str(stopped))
        self._num_agreements += 1
        name = f"{self._name}/{self._num_agreements}"
        reason = self.group.meet(name, lambda: self.group.published(self._name) or "", self._take_signal)
        if reason:
            raise Stopped(reason)

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Enclose steps that all ranks take together; within it, every rank calls :meth:`check` equally often."""
        self._in_steps, self._answer = not self.group.is_alone, None
        try:
            yield
        finally:
            self._in_steps = False
        if self._answer is not None:
            # Whatever it is: what was requested is published by now, and ends the next agreement.
            self._answer()

    def _check_step(self) -> None:
        # The answer was on its way during a whole step, so that nothing waits for it.
        if self._answer is not None and self._answer():
            self._answer = None
            self._raise_published()
        self._answer = self.group.ask_any(self._requested)

    def _take_signal(self) -> None:
        if self._signal.received:
            self.request(self._signal.received)

    def _raise_published(self) -> None:
        reason = self.group.published(self._name)
        if reason is not None:
            raise Stopped(reason)


class RankCallbacks(CallbackList):
    """A callback of one rank among several: a stop that it raises is requested of all of them."""

    def __init__(self, callback: Callback, stop: SharedStop, warn: Callable[[str], None]) -> None:
        super().__init__([callback], warn)
        self._stop = stop

    def _guard(self, callback: Callback, call: Callable[[], Any]) -> Any:
        try:
            return super()._guard(callback, call)
        except Stopped as stopped:
            self._stop.request(str(stopped))
            return None

"""Steps, and what each was spent on: measured by the host's clock, or on a GPU by the GPU's own.

On a GPU the marks are CUDA events in its stream, read when they have passed, so that no step waits for being measured.
A phase's time is then what the GPU saw of it: the wait for data, say, is only what computing could not hide.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from classifier.callbacks import Mode, Phase
from classifier.profiling.timeline import Timeline

MODES: tuple[Mode, ...] = get_args(Mode)
PHASES: tuple[Phase, ...] = get_args(Phase)
_READ_AHEAD = 64


class Clock(Protocol):
    """Marks in time, and the seconds between two of them."""

    def mark(self) -> Any: ...

    def has_passed(self, mark: Any) -> bool: ...

    def seconds(self, begin: Any, end: Any) -> float: ...

    def settle(self) -> None:
        """Wait until every mark has passed."""


class HostClock:
    """For a CPU, where what is called is done when the call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def has_passed(self, mark: float) -> Literal[True]:  # noqa: ARG002 - the protocol's
        return True

    def seconds(self, begin: float, end: float) -> float:
        return end - begin

    def settle(self) -> None:
        pass


class DeviceClock:
    """For a GPU, which works behind the host's back: events in its stream."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - the profiler starts before torch is imported

        self._cuda = torch.cuda

    def mark(self) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: Any) -> bool:
        return mark.query()

    def seconds(self, begin: Any, end: Any) -> float:
        return begin.elapsed_time(end) / 1000

    def settle(self) -> None:
        self._cuda.synchronize()


@dataclass(frozen=True)
class StepTable:
    """All steps, in order; N of them.

    ``mode`` (N,) counts in ``MODES``; ``epoch`` (N,) from 1; ``number`` (N,) from 0 within its mode; ``start_s`` (N,)
    since the epoch; ``seconds`` (N,); ``phases`` (N, 6) in seconds, in the order of ``PHASES``; ``is_usual`` (N,) is
    false for the first of a pass, which nothing was prepared for, and where the operators were watched.
    """

    mode: np.ndarray
    epoch: np.ndarray
    number: np.ndarray
    start_s: np.ndarray
    seconds: np.ndarray
    phases: np.ndarray
    is_usual: np.ndarray

    def of(self, mode: Mode) -> StepTable:
        return self.where(self.mode == MODES.index(mode))

    def where(self, chosen: np.ndarray) -> StepTable:
        """Those of ``chosen``, bool (N,)."""
        return StepTable(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.mode)


class _Open(NamedTuple):
    """A step that has been taken, and perhaps not passed yet."""

    mode: Mode
    epoch: int
    number: int
    is_usual: bool
    begin: Any
    end: Any
    phases: list[tuple[Phase, Any, Any]]
    anchor: tuple[float, Any]


class StepTimer:
    """Is told when passes, steps and phases begin and end; tells how long they took."""

    def __init__(self, clock: Clock, timeline: Timeline) -> None:
        self.checkpoint_s = 0.0
        self.passes_s: dict[Mode, float] = dict.fromkeys(MODES, 0.0)
        self._clock, self._timeline = clock, timeline
        self._rows = array("d")
        self._open: deque[_Open] = deque()
        self._mode: Mode = "train"
        self._epoch, self._first = 0, True
        self._numbers = dict.fromkeys(MODES, 0)
        self._anchor = (time.time(), clock.mark())
        self._pass_began: float | None = None
        self._begin: Any = None
        self._phases: list[tuple[Phase, Any, Any]] = []

    @property
    def number(self) -> int:
        """Of the step that is under way, within its mode."""
        return self._numbers[self._mode]

    def begin_pass(self, mode: Mode, epoch: int) -> None:
        self.end_pass()
        self._clock.settle()
        self._anchor = (time.time(), self._clock.mark())
        self._mode, self._epoch, self._first = mode, epoch, True
        self._pass_began = time.perf_counter()

    def end_pass(self) -> None:
        if self._pass_began is not None:
            self._clock.settle()
            self.passes_s[self._mode] += time.perf_counter() - self._pass_began
            self._pass_began = None
        self._read(0)
        self._timeline.flush_if_due()

    def leave_out(self, seconds: float) -> None:
        """Of the pass that is under way: what the profiler itself took."""
        if self._pass_began is not None:
            self._pass_began += seconds

    def begin_step(self) -> None:
        self._phases = []
        self._begin = self._clock.mark()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        if name == "checkpoint":
            with self._checkpoint():
                yield
            return
        begin = self._clock.mark()
        yield
        self._phases.append((name, begin, self._clock.mark()))

    @contextmanager
    def _checkpoint(self) -> Iterator[None]:
        """Saving waits for the weights, so the host's clock will do."""
        self.end_pass()
        started, began = time.time(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.checkpoint_s += seconds
        self._timeline.add("checkpoint", "train", self._numbers["train"], started, seconds)

    def end_step(self, *, is_usual: bool) -> None:
        mark = self._clock.mark()
        is_usual = is_usual and not self._first
        self._open.append(
            _Open(self._mode, self._epoch, self.number, is_usual, self._begin, mark, self._phases, self._anchor)
        )
        self._numbers[self._mode] += 1
        self._first = False
        self._read(_READ_AHEAD)

    def table(self) -> StepTable:
        rows = np.frombuffer(self._rows, dtype=float).reshape(-1, 6 + len(PHASES))
        return StepTable(
            mode=rows[:, 0].astype(int),
            epoch=rows[:, 1].astype(int),
            number=rows[:, 2].astype(int),
            is_usual=rows[:, 3].astype(bool),
            start_s=rows[:, 4].copy(),
            seconds=rows[:, 5].copy(),
            phases=rows[:, 6:].copy(),
        )

    def _read(self, ahead: int) -> None:
        """Take in the steps that have passed. ``ahead`` are left alone: asking too early is asking in vain."""
        while len(self._open) > ahead and self._clock.has_passed(self._open[0].end):
            self._take(self._open.popleft())

    def _take(self, step: _Open) -> None:
        between = self._clock.seconds
        moment, anchor = step.anchor
        start, seconds = moment + between(anchor, step.begin), between(step.begin, step.end)
        spent = dict.fromkeys(PHASES, 0.0)
        self._timeline.add("step", step.mode, step.number, start, seconds)
        for name, begin, end in step.phases:
            took = between(begin, end)
            spent[name] += took
            self._timeline.add(name, step.mode, step.number, start + between(step.begin, begin), took)
        mode = MODES.index(step.mode)
        self._rows.extend((mode, step.epoch, step.number, step.is_usual, start, seconds, *spent.values()))

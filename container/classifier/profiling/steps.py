"""Times of steps and their phases, measured by the host's clock or by the GPU's.

On a GPU, the marks are CUDA events in its stream. They are read after the GPU has passed them, so that measuring never
blocks a step. A phase's time is then the GPU's: a wait for data, for example, is only what computation could not hide.
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
_NUM_PENDING = 64  # steps left unread at the end of a step, since the GPU has hardly passed them yet


class Clock(Protocol):
    """Marks in time, and the seconds between two of them."""

    def mark(self) -> Any:
        """Return a mark of the present moment, of the clock's own type."""

    def has_passed(self, mark: Any) -> bool:
        """Return whether the device has reached a mark; before that it cannot be read."""
        ...

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the seconds between two marks that have passed."""
        ...

    def synchronize(self) -> None:
        """Wait until every mark has passed."""


class HostClock:
    """Clock for a CPU, where an operation is complete when its call returns."""

    def mark(self) -> float:
        """Return ``time.perf_counter()``, in seconds."""
        return time.perf_counter()

    def has_passed(self, mark: float) -> Literal[True]:  # noqa: ARG002 - the protocol's
        """Return True: a mark is in the past as soon as it exists."""
        return True

    def seconds(self, begin: float, end: float) -> float:
        """Return the difference of two marks."""
        return end - begin

    def synchronize(self) -> None:
        """Do nothing, since no operation is pending."""


class DeviceClock:
    """Clock for a GPU, which works asynchronously: events in its stream."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - the profiler starts before torch is imported

        self._cuda = torch.cuda

    def mark(self) -> Any:
        """Record a CUDA event in the current stream and return it."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: Any) -> bool:
        """Return whether the GPU has reached the event; never blocks."""
        return mark.query()

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the seconds between two events, which CUDA measures in milliseconds."""
        return begin.elapsed_time(end) / 1000

    def synchronize(self) -> None:
        """Wait for all work that was submitted to the GPU."""
        self._cuda.synchronize()


@dataclass(frozen=True)
class StepTable:
    """All N steps, in order.

    Attributes:
        mode: int (N,), indices into ``MODES``.
        epoch: int (N,), from 1.
        number: int (N,), from 0 within the mode.
        start_s: float (N,), Unix time.
        seconds: float (N,), duration.
        phases: float (N, 6), seconds of each phase in the order of ``PHASES``.
        is_usual: bool (N,), false for the first step of a pass, for which nothing was prefetched, and for steps whose
            operators were recorded.
    """

    mode: np.ndarray
    epoch: np.ndarray
    number: np.ndarray
    start_s: np.ndarray
    seconds: np.ndarray
    phases: np.ndarray
    is_usual: np.ndarray

    def of(self, mode: Mode) -> StepTable:
        """Return the steps of one mode."""
        return self.where(self.mode == MODES.index(mode))

    def where(self, mask: np.ndarray) -> StepTable:
        """Return the steps that a mask, bool (N,), selects."""
        return StepTable(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.mode)


class _PendingStep(NamedTuple):
    """A step whose marks the device may not have passed yet."""

    mode: Mode
    epoch: int
    number: int
    is_usual: bool
    begin: Any
    end: Any
    phases: list[tuple[Phase, Any, Any]]
    anchor: tuple[float, Any]


class StepTimer:
    """Timer of passes, steps and phases, in the order in which a training calls it.

    ``passes_s`` and ``checkpoint_s`` are total seconds; checkpoints belong to no pass. Steps that another callback
    disturbed are left out, of the passes' time too: there were ``num_disturbed``, of ``disturbed_s`` seconds.
    """

    def __init__(self, clock: Clock, timeline: Timeline) -> None:
        self.checkpoint_s = 0.0
        self.num_disturbed, self.disturbed_s = 0, 0.0
        self._step_began_s, self._is_disturbed = 0.0, False
        self.passes_s: dict[Mode, float] = dict.fromkeys(MODES, 0.0)
        self._clock, self._timeline = clock, timeline
        self._rows = array("d")
        self._pending: deque[_PendingStep] = deque()
        self._mode: Mode = "train"
        self._epoch, self._first = 0, True
        self._numbers = dict.fromkeys(MODES, 0)
        self._anchor = (time.time(), clock.mark())
        self._pass_began: float | None = None
        self._begin: Any = None
        self._phases: list[tuple[Phase, Any, Any]] = []

    @property
    def number(self) -> int:
        """Number of the current step within its mode, from 0."""
        return self._numbers[self._mode]

    def begin_pass(self, mode: Mode, epoch: int) -> None:
        """Begin a pass over a channel; a pass that has not ended ends now."""
        self.end_pass()
        self._clock.synchronize()
        self._anchor = (time.time(), self._clock.mark())
        self._mode, self._epoch, self._first = mode, epoch, True
        self._pass_began = time.perf_counter()

    def end_pass(self) -> None:
        """End the pass, if there is one, and read the times of all its steps."""
        if self._pass_began is not None:
            self._clock.synchronize()
            self._leave_out_disturbed()
            self.passes_s[self._mode] += time.perf_counter() - self._pass_began
            self._pass_began = None
        self._read(0)
        self._timeline.flush_if_due()

    def exclude(self, seconds: float) -> None:
        """Exclude the profiler's own time from that of the current pass."""
        if self._pass_began is not None:
            self._pass_began += seconds

    def begin_step(self) -> None:
        """Begin a step. It is counted only when it ends."""
        self._leave_out_disturbed()
        self._phases, self._step_began_s = [], time.perf_counter()
        self._begin = self._clock.mark()

    def disturb(self) -> None:
        """Leave the current step out, and the time until the next one begins."""
        self._is_disturbed = True

    @property
    def is_disturbed(self) -> bool:
        """Whether the current step is left out."""
        return self._is_disturbed

    def _leave_out_disturbed(self) -> None:
        if not self._is_disturbed:
            return
        seconds = time.perf_counter() - self._step_began_s
        self.exclude(seconds)
        self.num_disturbed, self.disturbed_s, self._is_disturbed = (
            self.num_disturbed + 1,
            self.disturbed_s + seconds,
            False,
        )

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Measure a phase of the current step, or a checkpoint between two steps or after a pass."""
        if name == "checkpoint":
            with self._checkpoint():
                yield
            return
        begin = self._clock.mark()
        yield
        self._phases.append((name, begin, self._clock.mark()))

    @contextmanager
    def _checkpoint(self) -> Iterator[None]:
        """Measure a checkpoint by the host's clock: saving waits for the weights."""
        self._clock.synchronize()
        started, began = time.time(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.checkpoint_s += seconds
        self.exclude(seconds)
        self._timeline.add("checkpoint", "train", self._numbers["train"], started, seconds)

    def end_step(self, *, is_usual: bool) -> None:
        """End and count the current step. The first step of a pass is never usual."""
        mark = self._clock.mark()
        is_usual = is_usual and not self._first
        step = (self._mode, self._epoch, self.number, is_usual, self._begin, mark, self._phases, self._anchor)
        if not self._is_disturbed:
            self._pending.append(_PendingStep(*step))
        self._numbers[self._mode] += 1
        self._first = False
        self._read(_NUM_PENDING)

    def table(self) -> StepTable:
        """Return all steps that have been read; after ``end_pass``, all that were counted."""
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

    def _read(self, num_pending: int) -> None:
        """Read the steps that the device has passed, except for the last ``num_pending``."""
        while len(self._pending) > num_pending and self._clock.has_passed(self._pending[0].end):
            self._add(self._pending.popleft())

    def _add(self, step: _PendingStep) -> None:
        between = self._clock.seconds
        moment, anchor = step.anchor
        start, seconds = moment + between(anchor, step.begin), between(step.begin, step.end)
        spent = dict.fromkeys(PHASES, 0.0)
        self._timeline.add("step", step.mode, step.number, start, seconds)
        for name, begin, end in step.phases:
            duration = between(begin, end)
            spent[name] += duration
            self._timeline.add(name, step.mode, step.number, start + between(step.begin, begin), duration)
        mode = MODES.index(step.mode)
        self._rows.extend((mode, step.epoch, step.number, step.is_usual, start, seconds, *spent.values()))

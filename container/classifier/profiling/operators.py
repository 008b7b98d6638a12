"""Operator times of a few steps, recorded by torch's own profiler, and a trace for Perfetto."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.callbacks import Phase
from classifier.contract.config import StepRange
from classifier.profiling.steps import PHASES

_NOTHING = nullcontext()
_MAX_OPERATORS = 15


@dataclass(frozen=True)
class Operator:
    """All calls of one operator in the recorded steps, with its own time (without the operators that it calls)."""

    name: str
    self_cpu_ms: float
    self_cuda_ms: float
    calls: int


class OperatorRecorder:
    """Records ``steps`` of the training, or its last ones if it is shorter, and writes ``trace``.

    It never raises: the error, if there was one, is in ``failure``.
    """

    def __init__(self, steps: StepRange, trace: Path) -> None:
        self.operators: Sequence[Operator] = ()
        self.failure: Exception | None = None
        self._steps, self._trace = steps, trace
        self._first, self._last, self._on_gpu = -1, -1, False
        self._profiler: Any = None

    @property
    def is_recording(self) -> bool:
        """Whether torch's profiler is on."""
        return self._profiler is not None

    @property
    def trace(self) -> Path | None:
        """The trace file, if it was written."""
        return self._trace if self.operators and not self.failure else None

    def plan(self, num_epochs: int, steps_per_epoch: int, *, on_gpu: bool) -> None:
        """Choose the steps to record, all within one epoch so that no validation is among them."""
        wanted = min(self._steps.num_steps, steps_per_epoch)
        first = max(0, min(self._steps.start_step, num_epochs * steps_per_epoch - wanted))
        self._first = first - max(0, first % steps_per_epoch + wanted - steps_per_epoch)
        self._last, self._on_gpu = self._first + wanted - 1, on_gpu

    def begin_step(self, number: int) -> float:
        """Start recording if the step is the first to record; return the seconds that this took."""
        return self._timed(self._start) if number == self._first else 0.0

    def end_step(self, number: int) -> float:
        """Stop recording if the step is the last to record; return the seconds that this took."""
        return self.end() if number >= self._last else 0.0

    def end(self) -> float:
        """Stop recording if it is on; return the seconds that this took."""
        return self._timed(self._stop) if self.is_recording else 0.0

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        """Return a context that marks the phase in the trace."""
        if not self.is_recording:
            return _NOTHING
        from torch.profiler import record_function  # noqa: PLC0415

        return record_function(name)

    def _timed(self, call: Callable[[], None]) -> float:
        began = time.perf_counter()
        try:
            call()
        except Exception as error:
            self._profiler, self.failure = None, error
        return time.perf_counter() - began

    def _start(self) -> None:
        # Imported late, since the profiler starts before torch is imported.
        from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415

        gpu = [ProfilerActivity.CUDA] if self._on_gpu else []
        self._profiler = profile(activities=[ProfilerActivity.CPU, *gpu], acc_events=True)
        self._profiler.start()

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self.operators = _most_expensive(profiler.key_averages())
        self._trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._trace))


def _most_expensive(events: Any) -> Sequence[Operator]:
    """The most expensive operators first, by GPU time if any. Kernels count towards the operator that calls them."""
    operators = [
        Operator(event.key, event.self_cpu_time_total / 1e3, event.self_device_time_total / 1e3, event.count)
        for event in events
        if event.device_type.name == "CPU" and event.key not in PHASES
    ]
    return sorted(operators, key=lambda operator: (operator.self_cuda_ms, operator.self_cpu_ms), reverse=True)[
        :_MAX_OPERATORS
    ]

"""A few steps watched by torch's own profiler: which operators took the time, and a trace for Perfetto."""

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
_MOST = 15


@dataclass(frozen=True)
class Operator:
    """All calls of one operator in the steps that were watched; its own time, without that of what it called."""

    name: str
    self_cpu_ms: float
    self_cuda_ms: float
    calls: int


class OperatorWatch:
    """Watches ``steps`` of the training, or its last ones where it is shorter; ``trace`` is written then.

    It never raises: ``failure`` says why it saw nothing.
    """

    def __init__(self, steps: StepRange, trace: Path) -> None:
        self.operators: Sequence[Operator] = ()
        self.failure: Exception | None = None
        self._steps, self._trace = steps, trace
        self._first, self._last, self._on_gpu = -1, -1, False
        self._profiler: Any = None

    @property
    def is_watching(self) -> bool:
        return self._profiler is not None

    @property
    def trace(self) -> Path | None:
        return self._trace if self.operators and not self.failure else None

    def plan(self, num_epochs: int, steps_per_epoch: int, *, on_gpu: bool) -> None:
        """Choose the steps of one epoch, lest a validation be seen among them."""
        wanted = min(self._steps.num_steps, steps_per_epoch)
        first = max(0, min(self._steps.start_step, num_epochs * steps_per_epoch - wanted))
        self._first = first - max(0, first % steps_per_epoch + wanted - steps_per_epoch)
        self._last, self._on_gpu = self._first + wanted - 1, on_gpu

    def begin_step(self, number: int) -> float:
        """Seconds that starting to watch took."""
        return self._spend(self._start) if number == self._first else 0.0

    def end_step(self, number: int) -> float:
        """Seconds that ending to watch took."""
        return self.end() if number >= self._last else 0.0

    def end(self) -> float:
        """End to watch, however far it has come."""
        return self._spend(self._stop) if self.is_watching else 0.0

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        """Names the phase in the trace."""
        if not self.is_watching:
            return _NOTHING
        from torch.profiler import record_function  # noqa: PLC0415

        return record_function(name)

    def _spend(self, what: Callable[[], None]) -> float:
        began = time.perf_counter()
        try:
            what()
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
        self.operators = _table(profiler.key_averages())
        self._trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._trace))


def _table(events: Any) -> Sequence[Operator]:
    """The most expensive first, by the GPU's time where there is one. A GPU's kernels count with who called them."""
    operators = [
        Operator(event.key, event.self_cpu_time_total / 1e3, event.self_device_time_total / 1e3, event.count)
        for event in events
        if event.device_type.name == "CPU" and event.key not in PHASES
    ]
    return sorted(operators, key=lambda one: (one.self_cuda_ms, one.self_cpu_ms), reverse=True)[:_MOST]

"""Profile of a training: the values that the rules evaluate, and their output for the report and the log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from classifier.callbacks import Mode
from classifier.contract.findings import Finding
from classifier.contract.hyperparameters import Hyperparameters
from classifier.profiling.operators import Operator
from classifier.profiling.steps import MODES, PHASES, StepTable
from classifier.profiling.system import SystemSample

Item = TypeVar("Item")

_MAX_STEPS, _MAX_SAMPLES = 2000, 600
_LABELS = {"data": "data wait", "transfer": "to device"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Measurements of a training. ``began_s``, ``first_step_s`` and ``ended_s`` are Unix times.

    Attributes:
        passes_s: total seconds of the passes over each channel.
        checkpoint_s: total seconds of writing checkpoints.
        num_disturbed: steps in which the debugger saved tensors, which ``steps`` and ``passes_s`` leave out.
        disturbed_s: total seconds of these.
        num_images: images trained on, summed over the epochs.
        num_workers: decoding threads; 0 if images are decoded between the steps.
    """

    parameters: Hyperparameters
    began_s: float
    first_step_s: float
    ended_s: float
    samples: Sequence[SystemSample]
    steps: StepTable
    passes_s: Mapping[Mode, float]
    checkpoint_s: float
    operators: Sequence[Operator]
    num_images: int
    num_workers: int
    num_disturbed: int = 0
    disturbed_s: float = 0.0

    @property
    def overhead_s(self) -> float:
        """Seconds that saving tensors took: of its steps, beyond those of as many usual ones."""
        table = self.steps.of("train")
        usual_s = float(np.median(table.seconds)) if len(table) else 0.0
        return max(0.0, self.disturbed_s - self.num_disturbed * usual_s)

    @property
    def initialization_s(self) -> float:
        """Seconds before the first step."""
        return self.first_step_s - self.began_s

    @property
    def total_s(self) -> float:
        """Seconds from the start of the process to the end of the training."""
        return self.ended_s - self.began_s

    @property
    def images_per_s(self) -> float:
        """Training throughput, without validation; 0 if nothing was trained."""
        return self.num_images / self.passes_s["train"] if self.passes_s["train"] else 0.0

    @cached_property
    def phases(self) -> Mapping[Mode, Mapping[str, float]]:
        """Seconds of each mode by phase; ``other`` is the rest of the passes' time."""
        return {mode: self._phases(mode) for mode in MODES}

    @cached_property
    def training_samples(self) -> Sequence[SystemSample]:
        """Samples from the first step on. Idle hardware means nothing while a job starts."""
        return [sample for sample in self.samples if sample.time_s >= self.first_step_s]

    def _phases(self, mode: Mode) -> Mapping[str, float]:
        spent = dict(zip(PHASES, self.steps.of(mode).phases.sum(axis=0).tolist(), strict=True))
        other = max(0.0, self.passes_s[mode] - sum(spent.values()))
        if mode == "train":
            spent["checkpoint"] += self.checkpoint_s
        return {**spent, "other": other}


def write_profile(path: Path, profile: Profile, trace: Path | None) -> None:
    """Write the data that the report draws, in seconds and percent; ``trace`` as a path relative to the file."""
    content = {
        "phases": {mode: _rounded(spent) for mode, spent in profile.phases.items() if profile.passes_s[mode]},
        "initialization_s": round(profile.initialization_s, 3),
        "total_s": round(profile.total_s, 3),
        "images_per_s": round(profile.images_per_s, 1),
        "debugger": {"num_steps": profile.num_disturbed, "overhead_s": round(profile.overhead_s, 3)},
        "steps": _steps(profile.steps.of("train")),
        "utilisation": _utilization(downsample(profile.samples, _MAX_SAMPLES), profile.began_s),
        "operators": [_rounded(asdict(operator)) for operator in profile.operators],
        "trace": os.path.relpath(trace, path.parent) if trace else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def summary_lines(profile: Profile, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the share of each phase, the seconds of each pass, and the rules that fired."""
    spent, total = profile.phases["train"], profile.passes_s["train"] + profile.checkpoint_s
    if total:
        shares = [f"{_LABELS.get(name, name)} {100 * value / total:.0f} %" for name, value in spent.items()]
        yield f"{' · '.join(shares)} of training; {profile.images_per_s:,.0f} photos/s"
        passes = [f"{mode} {seconds:.1f} s" for mode, seconds in profile.passes_s.items() if seconds]
        yield f"before the first step {profile.initialization_s:.1f} s, {', '.join(passes)}"
    if profile.num_disturbed:
        yield f"{profile.num_disturbed} steps left out, in which saving tensors took {profile.overhead_s:.1f} s more"
    for finding in findings:
        if finding.outcome == "fired":
            yield f"{finding.rule}: {finding.seen}. {finding.meaning} {finding.advice}"


def downsample(items: Sequence[Item], max_items: int) -> Sequence[Item]:
    """Return at most ``max_items`` items, evenly spaced, the first and the last included."""
    if len(items) <= max_items:
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, max_items).astype(int)]


def _steps(table: StepTable) -> list[list[Any]]:
    """A row for each step: number, epoch, seconds, and the seconds of each phase."""
    names = PHASES[: PHASES.index("checkpoint")]
    return [
        [
            int(table.number[row]),
            int(table.epoch[row]),
            round(float(table.seconds[row]), 5),
            {name: round(float(table.phases[row, column]), 5) for column, name in enumerate(names)},
        ]
        for row in downsample(range(len(table)), _MAX_STEPS)
    ]


def _utilization(samples: Sequence[SystemSample], began_s: float) -> Mapping[str, list[Any]]:
    has_gpu = bool(samples) and bool(samples[0].gpus)
    return {
        "t_s": [round(sample.time_s - began_s, 2) for sample in samples],
        "cpu_percent": _series(sample.cores.mean() for sample in samples),
        "cores": [_series(core) for core in np.array([sample.cores for sample in samples]).T],
        "iowait_percent": _series(sample.iowait.mean() for sample in samples),
        "memory_percent": _series(sample.memory for sample in samples),
        "disk_read_bytes_s": _series(sample.disk_read for sample in samples),
        "disk_write_bytes_s": _series(sample.disk_written for sample in samples),
        "network_bytes_s": _series(sample.received + sample.sent for sample in samples),
        "gpu_percent": _series(np.mean(sample.gpus) for sample in samples) if has_gpu else [],
        "gpu_memory_percent": _series(np.mean(sample.gpu_memory) for sample in samples) if has_gpu else [],
    }


def _series(values: Any) -> list[float]:
    return [round(float(value), 1) for value in values]


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}

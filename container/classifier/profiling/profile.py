"""Profile of a training: the values that the rules evaluate and the report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from classifier.callbacks import Mode
from classifier.contract.hyperparameters import Hyperparameters
from classifier.profiling.operators import Operator
from classifier.profiling.steps import MODES, PHASES, StepTable
from classifier.profiling.system import SystemSample


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Measurements of a training. ``began_s``, ``first_step_s`` and ``ended_s`` are Unix times.

    Attributes:
        passes_s: total seconds of the passes over each channel.
        checkpoint_s: total seconds of writing checkpoints.
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

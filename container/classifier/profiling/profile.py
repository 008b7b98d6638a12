"""What a profile holds: the values that the rules judge and the report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from classifier.callbacks import Mode
from classifier.contract.hyperparameters import Hyperparameters
from classifier.profiling.operators import Operator
from classifier.profiling.steps import MODES, PHASES, StepTable
from classifier.profiling.system import Sample


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A training, measured. Moments are in seconds since the epoch.

    ``passes_s`` are the seconds of all passes over each channel; ``num_images`` those trained on, epoch after epoch.
    ``num_workers`` are the threads that decode, 0 where decoding is done between the steps.
    """

    parameters: Hyperparameters
    began_s: float
    first_step_s: float
    ended_s: float
    samples: Sequence[Sample]
    steps: StepTable
    passes_s: Mapping[Mode, float]
    checkpoint_s: float
    operators: Sequence[Operator]
    num_images: int
    num_workers: int

    @property
    def initialization_s(self) -> float:
        return self.first_step_s - self.began_s

    @property
    def total_s(self) -> float:
        return self.ended_s - self.began_s

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.passes_s["train"] if self.passes_s["train"] else 0.0

    @cached_property
    def phases(self) -> Mapping[Mode, Mapping[str, float]]:
        """Seconds of each mode by phase; ``other`` is what none of them explains."""
        return {mode: self._phases(mode) for mode in MODES}

    @cached_property
    def training_samples(self) -> Sequence[Sample]:
        """Those taken from the first step on: while a job starts, nothing can be idle that should be busy."""
        return [sample for sample in self.samples if sample.time_s >= self.first_step_s]

    def _phases(self, mode: Mode) -> Mapping[str, float]:
        spent = dict(zip(PHASES, self.steps.of(mode).phases.sum(axis=0).tolist(), strict=True))
        other = max(0.0, self.passes_s[mode] - sum(spent.values()))
        if mode == "train":
            spent["checkpoint"] += self.checkpoint_s
        return {**spent, "other": other}

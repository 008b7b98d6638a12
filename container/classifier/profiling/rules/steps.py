"""Rules on the duration of steps, of loading and of initialization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from classifier.callbacks import Mode
from classifier.contract.findings import Finding, fired, quiet, skipped
from classifier.profiling.profile import Profile
from classifier.profiling.rules.base import SMALLER_PHOTOS, NamedRule
from classifier.profiling.steps import PHASES, StepTable

_MIN_STEPS = 12


@dataclass(frozen=True)
class Dataloader(NamedRule):
    """Training waits for photos in over ``wait_threshold`` % of its time.

    AWS's rule compares the number of loader threads with the cores: ``min_threshold`` to ``max_threshold`` %. A number
    out of that range matters only if training waits, which is measured here; it lowers ``wait_threshold`` to a quarter.
    """

    min_threshold: float = 70
    max_threshold: float = 200
    wait_threshold: float = 20

    def __call__(self, profile: Profile) -> Finding:
        if not profile.passes_s["train"] or not profile.samples:
            return skipped(self, "no step or no system sample was recorded")
        num_cores = len(profile.samples[0].cores)
        loaders = 100 * profile.num_workers / num_cores
        waited = 100 * profile.phases["train"]["data"] / profile.passes_s["train"]
        is_wrong = not self.min_threshold <= loaders <= self.max_threshold
        seen = (
            f"training waited for photos in {waited:.0f} % of its time; {profile.num_workers} threads decode "
            f"on {num_cores} cores"
        )
        if waited < self.wait_threshold / (4 if is_wrong else 1):
            return quiet(self, seen)
        return fired(
            self,
            seen,
            meaning="Photos are read and decoded more slowly than the training consumes them.",
            advice=self._advice(loaders, num_cores),
        )

    def _advice(self, loaders: float, num_cores: int) -> str:
        if loaders < self.min_threshold:
            return f"Set num_workers=auto or {num_cores}, one thread per core."
        if loaders > self.max_threshold:
            return f"Lower num_workers to {num_cores}: more threads than cores slow each other down."
        return (
            f"{SMALLER_PHOTOS}, lower image_size, use augmentation=none or flip with freeze=backbone, which reads "
            "each photo only once, or choose an instance with more vCPUs."
        )


@dataclass(frozen=True)
class MaxInitializationTime(NamedRule):
    """The first step came after more than ``threshold`` minutes.

    In a short training: after more than a minute, and more than ``share`` % of the job's time.
    """

    threshold: float = 20
    share: float = 50

    def __call__(self, profile: Profile) -> Finding:
        if not len(profile.steps):
            return skipped(self, "no step was recorded")
        took, share = profile.initialization_s, 100 * profile.initialization_s / max(1e-9, profile.total_s)
        seen = f"the first step began after {took:.0f} s, {share:.0f} % of the job's time"
        if took <= 60 * self.threshold and (took < 60 or share <= self.share):
            return quiet(self, seen)
        if profile.parameters.freeze == "backbone":
            meaning = "Before the first step, every photo is checked and the frozen backbone's features are computed."
        else:
            meaning = "Before the first step, torch is loaded, every photo is checked, and weights are read."
        return fired(
            self,
            seen,
            meaning=meaning,
            advice=f"{SMALLER_PHOTOS}, use input mode File instead of FastFile, and provide weights in the channel "
            "pretrained or in the image.",
        )


@dataclass(frozen=True)
class StepOutlier(NamedRule):
    """More than ``n_outliers`` steps took over ``stddev`` standard deviations longer than the mean.

    In a short training, more than 1 % of the steps. The first step of a pass never counts, nor does a step of at most
    1.5 times the median. Nothing is reported unless the excess over the median adds up to ``min_share`` % of all steps'
    time. ``mode`` None: training and validation.
    """

    stddev: float = 3
    mode: Mode | None = None
    n_outliers: int = 10
    min_share: float = 5

    def __call__(self, profile: Profile) -> Finding:
        modes: tuple[Mode, ...] = (self.mode,) if self.mode else ("train", "validation")
        tables = {mode: _usual_steps(profile.steps.of(mode)) for mode in modes}
        total = sum(len(table) for table in tables.values())
        if total < _MIN_STEPS:
            seen = f"the training was too short: {total} usual steps, {_MIN_STEPS} are needed"
            return skipped(self, seen)
        found = {mode: self._outliers(table) for mode, table in tables.items()}
        count = sum(len(table) for table in found.values())
        excess_s = sum(self._excess_s(found[mode], tables[mode]) for mode in modes)
        share = 100 * excess_s / sum(float(table.seconds.sum()) for table in tables.values())
        if count <= min(self.n_outliers, total // 100) or share < self.min_share:
            return quiet(self, f"{count} of {total} steps took much longer than usual: {share:.1f} % of the time")
        mode: Mode = max(modes, key=lambda one: found[one].seconds.sum())
        return self._describe(mode, tables[mode], found[mode], f"{count} of {total} steps took much longer than usual")

    def _excess_s(self, outliers: StepTable, table: StepTable) -> float:
        """Seconds of the outliers beyond those of as many median steps."""
        return float((outliers.seconds - np.median(table.seconds)).sum()) if len(outliers) else 0.0

    def _outliers(self, table: StepTable) -> StepTable:
        if len(table) < _MIN_STEPS:
            return table.where(np.zeros(len(table), dtype=bool))
        limit = table.seconds.mean() + self.stddev * table.seconds.std()
        return table.where((table.seconds > limit) & (table.seconds > 1.5 * np.median(table.seconds)))

    def _describe(self, mode: Mode, table: StepTable, outliers: StepTable, seen: str) -> Finding:
        worst = int(np.argmax(outliers.seconds))
        extra = outliers.phases.sum(axis=0) / len(outliers) - np.median(table.phases, axis=0)
        phase = PHASES[int(np.argmax(extra))] if extra.max() > 0 else "other"
        meaning, advice = _DATA_STALLS if phase == "data" else _OTHER_STALLS
        return fired(
            self,
            f"{seen}; the longest, step {outliers.number[worst]} of {mode}, took {outliers.seconds[worst]:.2f} s "
            f"(median {np.median(table.seconds):.2f} s), most of it in {phase}",
            meaning=meaning,
            advice=advice,
            step=int(outliers.number[0]),
        )


_DATA_STALLS = (
    "Some photos are much larger than the others, or the disk stalls.",
    f"{SMALLER_PHOTOS}, raise num_workers, use input mode File.",
)
_OTHER_STALLS = (
    "Another process occasionally occupies the machine or the disk.",
    "Check the system utilization at that time. If other jobs share the machine, use a dedicated one.",
)


def _usual_steps(table: StepTable) -> StepTable:
    return table.where(table.is_usual)

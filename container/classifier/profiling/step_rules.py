"""Rules over the steps' times, by AWS's names, parameters and defaults, and scaled to short trainings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from classifier.contract.findings import Finding
from classifier.observer import Mode
from classifier.profiling.profile import Profile
from classifier.profiling.steps import PHASES, StepTable


@dataclass(frozen=True)
class Dataloader:
    """Training waits for photos.

    AWS compares the number of loaders with the cores: between ``min_threshold`` and ``max_threshold`` %. A wrong number
    matters only where training waits, which is known here: it fires above ``wait_threshold`` % of the time, or above a
    quarter of that with a wrong number.
    """

    min_threshold: float = 70
    max_threshold: float = 200
    wait_threshold: float = 20

    def __call__(self, profile: Profile) -> Finding:
        if not profile.passes_s["train"] or not profile.samples:
            return Finding(rule="Dataloader", outcome="skipped", seen="no step was taken, or no sample")
        num_cores = len(profile.samples[0].cores)
        loaders = 100 * profile.num_workers / num_cores
        waited = 100 * profile.phases["train"]["data"] / profile.passes_s["train"]
        is_wrong = not self.min_threshold <= loaders <= self.max_threshold
        seen = (
            f"training waited for photos in {waited:.0f} % of its time; {profile.num_workers} threads decode "
            f"on {num_cores} cores"
        )
        if waited < self.wait_threshold / (4 if is_wrong else 1):
            return Finding(rule="Dataloader", outcome="quiet", seen=seen)
        return Finding(
            rule="Dataloader",
            outcome="fired",
            seen=seen,
            meaning="Reading and decoding photos is slower than training on them.",
            advice=self._advice(loaders, num_cores),
        )

    def _advice(self, loaders: float, num_cores: int) -> str:
        if loaders < self.min_threshold:
            return f"Set num_workers=auto, or to {num_cores}, one thread a core."
        if loaders > self.max_threshold:
            return f"Lower num_workers to {num_cores}: more threads than cores hinder each other."
        return (
            "Shrink the photos once (prepare_data.py --longer-side), lower image_size, use augmentation=none or flip "
            "with freeze=backbone, which reads each photo once, or take an instance with more vCPUs."
        )


@dataclass(frozen=True)
class MaxInitializationTime:
    """The first step came later than after ``threshold`` minutes.

    In a short training: after a minute at least, and after more than ``share`` % of the whole.
    """

    threshold: float = 20
    share: float = 50

    def __call__(self, profile: Profile) -> Finding:
        if not len(profile.steps):
            return Finding(rule="MaxInitializationTime", outcome="skipped", seen="no step was taken")
        took, share = profile.initialization_s, 100 * profile.initialization_s / max(1e-9, profile.total_s)
        seen = f"the first step came after {took:.0f} s, {share:.0f} % of the whole"
        if took <= 60 * self.threshold and (took < 60 or share <= self.share):
            return Finding(rule="MaxInitializationTime", outcome="quiet", seen=seen)
        if profile.parameters.freeze == "backbone":
            meaning = "Before the first step every photo is looked at, and a frozen backbone's features are computed."
        else:
            meaning = "Before the first step torch is loaded, every photo is looked at, and weights are read."
        return Finding(
            rule="MaxInitializationTime",
            outcome="fired",
            seen=seen,
            meaning=meaning,
            advice="Shrink the photos once (prepare_data.py --longer-side), use input mode File instead of FastFile, "
            "and give weights in the channel pretrained or baked into the image.",
        )


@dataclass(frozen=True)
class StepOutlier:
    """More than ``n_outliers`` steps took longer than the mean by ``stddev`` standard deviations.

    In a short training one in a hundred steps may, up to ``n_outliers``. The first step of a pass is no outlier, nor is
    one that took less than 1.5 times the median. ``mode`` None: training and validation.
    """

    stddev: float = 3
    mode: Mode | None = None
    n_outliers: int = 10

    def __call__(self, profile: Profile) -> Finding:
        modes: tuple[Mode, ...] = (self.mode,) if self.mode else ("train", "validation")
        tables = {mode: _usual(profile.steps.of(mode)) for mode in modes}
        total = sum(len(table) for table in tables.values())
        if total < 12:
            seen = f"the training was too short: {total} usual steps, 12 are needed"
            return Finding(rule="StepOutlier", outcome="skipped", seen=seen)
        found = {mode: self._outliers(table) for mode, table in tables.items()}
        count = sum(len(table) for table in found.values())
        if count <= min(self.n_outliers, total // 100):
            return Finding(rule="StepOutlier", outcome="quiet", seen=f"{count} of {total} steps took far too long")
        mode: Mode = max(modes, key=lambda one: found[one].seconds.sum())
        return _describe(mode, tables[mode], found[mode], f"{count} of {total} steps took far too long")

    def _outliers(self, table: StepTable) -> StepTable:
        if len(table) < 12:
            return table.where(np.zeros(len(table), dtype=bool))
        limit = table.seconds.mean() + self.stddev * table.seconds.std()
        return table.where((table.seconds > limit) & (table.seconds > 1.5 * np.median(table.seconds)))


def _usual(table: StepTable) -> StepTable:
    return table.where(table.is_usual)


def _describe(mode: Mode, table: StepTable, outliers: StepTable, seen: str) -> Finding:
    worst = int(np.argmax(outliers.seconds))
    extra = outliers.phases.sum(axis=0) / len(outliers) - np.median(table.phases, axis=0)
    phase = PHASES[int(np.argmax(extra))] if extra.max() > 0 else "other"
    meaning, advice = _CAUSES.get(phase, _CAUSE)
    return Finding(
        rule="StepOutlier",
        outcome="fired",
        step=int(outliers.number[0]),
        seen=f"{seen}; the longest, step {outliers.number[worst]} of {mode}, took {outliers.seconds[worst]:.2f} s "
        f"(median {np.median(table.seconds):.2f} s), most of it in {phase}",
        meaning=meaning,
        advice=advice,
    )


_CAUSE = (
    "Now and then something else takes the machine, or the disk.",
    "Look at the machine's utilisation at that time; if other jobs share the machine, take one of your own.",
)
_CAUSES = {
    "data": (
        "Some photos are much larger than the others, or the disk stalls.",
        "Shrink the photos once (prepare_data.py --longer-side), raise num_workers, use input mode File.",
    ),
}

"""The profiler's rules, by AWS's names: each a value with AWS's parameters, called with a profile for its finding."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from classifier.callbacks import Mode
from classifier.contract.findings import Finding
from classifier.profiling.profile import Profile
from classifier.profiling.steps import PHASES, StepTable
from classifier.profiling.system import Sample

_ENOUGH = 10
_NO_GPU = "there is no GPU: the CPU itself computes"


@dataclass(frozen=True)
class CPUBottleneck:
    """The GPU waits (below ``gpu_threshold`` %) while a core is at its limit, in over ``threshold`` % of the time."""

    threshold: float = 50
    gpu_threshold: float = 10
    cpu_threshold: float = 90

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples, needs_gpu=True):
            return _skipped(self, reason)
        is_busy = np.array([sample.cores.max() > self.cpu_threshold for sample in samples])
        share = 100 * np.mean(is_busy & (_gpus(samples).mean(axis=1) < self.gpu_threshold))
        seen = (
            f"in {share:.0f} % of the time the GPU was less than {self.gpu_threshold:g} % busy while a core was "
            f"over {self.cpu_threshold:g} %"
        )
        if share <= self.threshold:
            return Finding(rule="CPUBottleneck", outcome="quiet", seen=seen)
        return Finding(
            rule="CPUBottleneck",
            outcome="fired",
            seen=seen,
            meaning="The GPU waits for the CPU, which decodes and augments photos too slowly.",
            advice="Shrink the photos once (prepare_data.py --longer-side), lower image_size, use augmentation=flip or "
            "freeze=backbone, or take an instance with more vCPUs for each GPU.",
        )


@dataclass(frozen=True)
class IOBottleneck:
    """Whoever computes waits for a disk (over ``io_threshold`` %) in over ``threshold`` % of the time.

    With a GPU only moments count in which it is below ``gpu_threshold`` %, and one core that waits is enough.
    """

    threshold: float = 50
    gpu_threshold: float = 10
    io_threshold: float = 50

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples):
            return _skipped(self, reason)
        if samples[0].gpus:
            waits = np.array([sample.iowait.max() for sample in samples]) > self.io_threshold
            waits &= _gpus(samples).mean(axis=1) < self.gpu_threshold
        else:
            waits = np.array([sample.iowait.mean() for sample in samples]) > self.io_threshold
        share = 100 * np.mean(waits)
        seen = f"in {share:.0f} % of the time more than {self.io_threshold:g} % was waiting for a disk"
        if share <= self.threshold:
            return Finding(rule="IOBottleneck", outcome="quiet", seen=seen)
        return Finding(
            rule="IOBottleneck",
            outcome="fired",
            seen=seen,
            meaning="Photos come from the disk more slowly than they are trained on.",
            advice="Use input mode File instead of FastFile, shrink the photos once (prepare_data.py --longer-side), "
            "raise num_workers so that more reads are under way, or take an instance with NVMe disks.",
        )


@dataclass(frozen=True)
class LowGPUUtilization:
    """A GPU's 95th percentile is below ``threshold_p95`` %, or its 5th below ``threshold_p5`` %: it is up and down."""

    threshold_p95: float = 70
    threshold_p5: float = 10
    window: int = 500

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples, needs_gpu=True):
            return _skipped(self, reason)
        p5, p95 = np.percentile(_gpus(samples)[-self.window :], (5, 95), axis=0)
        worst = int(np.argmin(p95))
        seen = f"GPU {worst}: 95th percentile {p95[worst]:.0f} %, 5th percentile {p5[worst]:.0f} %"
        if p95[worst] < self.threshold_p95:
            return Finding(
                rule="LowGPUUtilization",
                outcome="fired",
                seen=seen,
                meaning="The GPU has too little to do: its steps are small, or it waits for photos.",
                advice="Raise batch_size, and lr with it. Where Dataloader fired as well, see there first. "
                "A smaller GPU instance would do, too.",
            )
        if (p95 > self.threshold_p95).any() and (p5[p95 > self.threshold_p95] < self.threshold_p5).any():
            return Finding(
                rule="LowGPUUtilization",
                outcome="fired",
                seen=seen,
                meaning="The GPU is up and down: it computes, then waits for photos, for validation or for a save.",
                advice="See where the steps' time goes. If it is data: raise num_workers, or prepare smaller photos.",
            )
        return Finding(rule="LowGPUUtilization", outcome="quiet", seen=seen)


@dataclass(frozen=True)
class BatchSize:
    """CPU, GPU and GPU memory are all below their thresholds at their 95th percentile: the machine is too large."""

    cpu_threshold_p95: float = 70
    gpu_threshold_p95: float = 70
    gpu_memory_threshold_p95: float = 70
    window: int = 500

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples, needs_gpu=True):
            return _skipped(self, reason)
        recent = samples[-self.window :]
        cpu = np.percentile([sample.cores.mean() for sample in recent], 95)
        gpu = np.percentile(_gpus(recent), 95)
        memory = np.percentile([sample.gpu_memory for sample in recent], 95)
        seen = f"95th percentiles: CPU {cpu:.0f} %, GPU {gpu:.0f} %, GPU memory {memory:.0f} %"
        limits = (self.cpu_threshold_p95, self.gpu_threshold_p95, self.gpu_memory_threshold_p95)
        if any(value >= limit for value, limit in zip((cpu, gpu, memory), limits, strict=True)):
            return Finding(rule="BatchSize", outcome="quiet", seen=seen)
        batch_size = profile.parameters.batch_size
        return Finding(
            rule="BatchSize",
            outcome="fired",
            seen=seen,
            meaning=f"batch_size={batch_size} uses neither the GPU nor the CPU to the full.",
            advice=f"Try batch_size={2 * batch_size}, and lr with it; or take a smaller instance.",
        )


@dataclass(frozen=True)
class GPUMemoryIncrease:
    """The moving average of a GPU's memory over ``window`` samples grew by over ``increase`` points in one window.

    The first quarter of the samples is left out: there the memory that a training needs is taken.
    """

    increase: float = 5
    window: int = 10

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples, needs_gpu=True):
            return _skipped(self, reason)
        memory = np.array([sample.gpu_memory for sample in samples])[len(samples) // 4 :]
        if len(memory) < 2 * self.window:
            return _skipped(self, f"the training was too short: {len(samples)} samples, {3 * self.window} are needed")
        kernel = np.ones(self.window) / self.window
        average = np.array([np.convolve(one, kernel, "valid") for one in memory.T])
        growth = average[:, self.window :] - average[:, : -self.window]
        seen = f"largest growth of GPU memory {growth.max():.1f} points; {memory[-1].max():.0f} % full at the end"
        if growth.max() <= self.increase:
            return Finding(rule="GPUMemoryIncrease", outcome="quiet", seen=seen)
        return Finding(
            rule="GPUMemoryIncrease",
            outcome="fired",
            seen=seen,
            meaning="GPU memory still grows long after the first steps; if it goes on, the job ends out of memory.",
            advice="Lower batch_size or image_size, or use precision=bf16, before the memory is full.",
        )


@dataclass(frozen=True)
class LoadBalancing:
    """Two GPUs are busy in different ways: their histograms of utilisation differ by over ``threshold`` of 1."""

    threshold: float = 0.5

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _why_not(samples, needs_gpu=True):
            return _skipped(self, reason)
        busy = _gpus(samples)
        if busy.shape[1] < 2:
            return _skipped(self, "there is one GPU: nothing to balance")
        histograms = [np.histogram(one, bins=10, range=(0, 100))[0] / len(samples) for one in busy.T]
        pairs = list(combinations(range(len(histograms)), 2))
        apart = [float(np.abs(histograms[a] - histograms[b]).sum() / 2) for a, b in pairs]
        first, second = pairs[int(np.argmax(apart))]
        means = busy.mean(axis=0)
        seen = (
            f"GPU {first} was {means[first]:.0f} % busy and GPU {second} {means[second]:.0f} %; "
            f"their histograms differ by {max(apart):.2f}"
        )
        if max(apart) <= self.threshold:
            return Finding(rule="LoadBalancing", outcome="quiet", seen=seen)
        return Finding(
            rule="LoadBalancing",
            outcome="fired",
            seen=seen,
            meaning="Some GPUs have less to do than others, and cost as much.",
            advice="Take an instance with as many GPUs as are used; let batch_size divide by their number.",
        )


@dataclass(frozen=True)
class OverallSystemUsage:
    """Percentiles of everything, to be read; it never fires."""

    def __call__(self, profile: Profile) -> Finding:
        if not profile.samples:
            return _skipped(self, "no sample was taken")
        rows = {
            "CPU": [sample.cores.mean() for sample in profile.samples],
            "I/O wait": [sample.iowait.mean() for sample in profile.samples],
            "memory": [sample.memory for sample in profile.samples],
        }
        if profile.samples[0].gpus:
            rows["GPU"] = [np.mean(sample.gpus) for sample in profile.samples]
            rows["GPU memory"] = [np.mean(sample.gpu_memory) for sample in profile.samples]
        parts = [f"{name} {' / '.join(f'{value:.0f}' for value in np.percentile(row, (50, 95, 100)))} %"
                 for name, row in rows.items()]  # fmt: skip
        return Finding(
            rule="OverallSystemUsage", outcome="quiet", seen=f"median / 95th percentile / most: {', '.join(parts)}"
        )


def _gpus(samples: Sequence[Sample]) -> np.ndarray:
    """(N, num_gpus), in percent."""
    return np.array([sample.gpus for sample in samples])


def _why_not(samples: Sequence[Sample], *, needs_gpu: bool = False) -> str | None:
    """Why a rule can't be evaluated, if it can't."""
    if needs_gpu and not any(sample.gpus for sample in samples):
        return _NO_GPU
    if len(samples) < _ENOUGH:
        return f"the training was too short: {len(samples)} samples, {_ENOUGH} are needed"
    return None


def _skipped(rule: object, reason: str) -> Finding:
    return Finding(rule=type(rule).__name__, outcome="skipped", seen=reason)


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
Rule = Callable[[Profile], Finding]
RULES: Sequence[Rule] = (
    CPUBottleneck(),
    IOBottleneck(),
    LowGPUUtilization(),
    BatchSize(),
    GPUMemoryIncrease(),
    LoadBalancing(),
    Dataloader(),
    MaxInitializationTime(),
    StepOutlier(),
    OverallSystemUsage(),
)


def evaluate(profile: Profile, rules: Sequence[Rule] = RULES) -> Sequence[Finding]:
    """A finding of each rule. One that breaks is skipped, with its reason, and costs nothing else."""
    return [_evaluate(rule, profile) for rule in rules]


def _evaluate(rule: Rule, profile: Profile) -> Finding:
    try:
        return rule(profile)
    except Exception:
        reason = f"the rule itself failed\n{traceback.format_exc()}"
        return Finding(rule=type(rule).__name__, outcome="skipped", seen=reason)

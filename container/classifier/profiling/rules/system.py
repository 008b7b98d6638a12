"""Rules on the utilization of CPU, GPU, memory and disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from classifier.contract.findings import Finding, fired, quiet, skipped
from classifier.profiling.profile import Profile
from classifier.profiling.rules.base import SMALLER_PHOTOS, NamedRule
from classifier.profiling.system import SystemSample

_MIN_SAMPLES = 10
_NO_GPU = "there is no GPU: the CPU itself computes"


@dataclass(frozen=True)
class CPUBottleneck(NamedRule):
    """GPU use is below ``gpu_threshold`` % and a core above ``cpu_threshold`` % in over ``threshold`` % of samples."""

    threshold: float = 50
    gpu_threshold: float = 10
    cpu_threshold: float = 90

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples, needs_gpu=True):
            return skipped(self, reason)
        is_busy = np.array([sample.cores.max() > self.cpu_threshold for sample in samples])
        share = 100 * np.mean(is_busy & (_gpus(samples).mean(axis=1) < self.gpu_threshold))
        seen = (
            f"in {share:.0f} % of the time the GPU was less than {self.gpu_threshold:g} % busy while a core was "
            f"over {self.cpu_threshold:g} %"
        )
        if share <= self.threshold:
            return quiet(self, seen)
        return fired(
            self,
            seen,
            meaning="The GPU waits for the CPU, which decodes and augments photos too slowly.",
            advice=f"{SMALLER_PHOTOS}, lower image_size, use augmentation=flip or freeze=backbone, or choose an "
            "instance with more vCPUs per GPU.",
        )


@dataclass(frozen=True)
class IOBottleneck(NamedRule):
    """I/O wait above ``io_threshold`` % in over ``threshold`` % of the time.

    With a GPU: the I/O wait of any core, while GPU use is below ``gpu_threshold`` %. Without: the mean of all cores.
    """

    threshold: float = 50
    gpu_threshold: float = 10
    io_threshold: float = 50

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples):
            return skipped(self, reason)
        if samples[0].gpus:
            waits = np.array([sample.iowait.max() for sample in samples]) > self.io_threshold
            waits &= _gpus(samples).mean(axis=1) < self.gpu_threshold
        else:
            waits = np.array([sample.iowait.mean() for sample in samples]) > self.io_threshold
        share = 100 * np.mean(waits)
        seen = f"in {share:.0f} % of the time the I/O wait was over {self.io_threshold:g} %"
        if share <= self.threshold:
            return quiet(self, seen)
        return fired(
            self,
            seen,
            meaning="Photos are read from the disk more slowly than the training consumes them.",
            advice=f"Use input mode File instead of FastFile. {SMALLER_PHOTOS}, raise num_workers for more parallel "
            "reads, or choose an instance with NVMe disks.",
        )


@dataclass(frozen=True)
class LowGPUUtilization(NamedRule):
    """A GPU's use is low (95th percentile below ``threshold_p95`` %) or fluctuates (5th below ``threshold_p5`` %).

    Only the last ``window`` samples count.
    """

    threshold_p95: float = 70
    threshold_p5: float = 10
    window: int = 500

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples, needs_gpu=True):
            return skipped(self, reason)
        p5, p95 = np.percentile(_gpus(samples)[-self.window :], (5, 95), axis=0)
        worst = int(np.argmin(p95))
        seen = f"GPU {worst}: 95th percentile {p95[worst]:.0f} %, 5th percentile {p5[worst]:.0f} %"
        if p95[worst] < self.threshold_p95:
            return fired(
                self,
                seen,
                meaning="The GPU is underused: its steps are too small, or it waits for photos.",
                advice="Raise batch_size, and lr with it. If Dataloader fired as well, follow its advice first. "
                "A smaller GPU instance may be enough.",
            )
        if (p95 > self.threshold_p95).any() and (p5[p95 > self.threshold_p95] < self.threshold_p5).any():
            return fired(
                self,
                seen,
                meaning="GPU use fluctuates: the GPU computes, then waits for photos, validation or a checkpoint.",
                advice="Check the steps' time per phase. If it is data: raise num_workers, or prepare smaller photos.",
            )
        return quiet(self, seen)


@dataclass(frozen=True)
class BatchSize(NamedRule):
    """The 95th percentiles of CPU, GPU and GPU memory use are all below their thresholds: the batch is too small."""

    cpu_threshold_p95: float = 70
    gpu_threshold_p95: float = 70
    gpu_memory_threshold_p95: float = 70
    window: int = 500

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples, needs_gpu=True):
            return skipped(self, reason)
        recent = samples[-self.window :]
        cpu = np.percentile([sample.cores.mean() for sample in recent], 95)
        gpu = np.percentile(_gpus(recent), 95)
        memory = np.percentile([sample.gpu_memory for sample in recent], 95)
        seen = f"95th percentiles: CPU {cpu:.0f} %, GPU {gpu:.0f} %, GPU memory {memory:.0f} %"
        limits = (self.cpu_threshold_p95, self.gpu_threshold_p95, self.gpu_memory_threshold_p95)
        if any(value >= limit for value, limit in zip((cpu, gpu, memory), limits, strict=True)):
            return quiet(self, seen)
        batch_size = profile.parameters.batch_size
        return fired(
            self,
            seen,
            meaning=f"batch_size={batch_size} is too small to use the GPU or the CPU fully.",
            advice=f"Try batch_size={2 * batch_size} and a larger lr, or choose a smaller instance.",
        )


@dataclass(frozen=True)
class GPUMemoryIncrease(NamedRule):
    """The moving average of a GPU's memory use grew by over ``increase`` percentage points in ``window`` samples.

    The first quarter of the samples is ignored, since a training allocates its memory then.
    """

    increase: float = 5
    window: int = 10

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples, needs_gpu=True):
            return skipped(self, reason)
        memory = np.array([sample.gpu_memory for sample in samples])[len(samples) // 4 :]
        if len(memory) < 2 * self.window:
            return skipped(self, f"the training was too short: {len(samples)} samples, {3 * self.window} are needed")
        kernel = np.ones(self.window) / self.window
        average = np.array([np.convolve(one, kernel, "valid") for one in memory.T])
        growth = average[:, self.window :] - average[:, : -self.window]
        seen = (
            f"GPU memory grew by up to {growth.max():.1f} percentage points; {memory[-1].max():.0f} % used at the end"
        )
        if growth.max() <= self.increase:
            return quiet(self, seen)
        return fired(
            self,
            seen,
            meaning="GPU memory still grows long after the first steps; if this continues, the job runs out of memory.",
            advice="Lower batch_size or image_size, or use precision=bf16.",
        )


@dataclass(frozen=True)
class LoadBalancing(NamedRule):
    """The utilization histograms of two GPUs differ by over ``threshold`` (total variation distance, 0 to 1)."""

    threshold: float = 0.5

    def __call__(self, profile: Profile) -> Finding:
        samples = profile.training_samples
        if reason := _unusable(samples, needs_gpu=True):
            return skipped(self, reason)
        busy = _gpus(samples)
        if busy.shape[1] < 2:
            return skipped(self, "there is one GPU: nothing to balance")
        histograms = [np.histogram(one, bins=10, range=(0, 100))[0] / len(samples) for one in busy.T]
        pairs = list(combinations(range(len(histograms)), 2))
        distances = [float(np.abs(histograms[a] - histograms[b]).sum() / 2) for a, b in pairs]
        first, second = pairs[int(np.argmax(distances))]
        means = busy.mean(axis=0)
        seen = (
            f"GPU {first} was {means[first]:.0f} % busy and GPU {second} {means[second]:.0f} %; "
            f"their histograms differ by {max(distances):.2f}"
        )
        if max(distances) <= self.threshold:
            return quiet(self, seen)
        return fired(
            self,
            seen,
            meaning="Some GPUs do less work than others at the same price.",
            advice="Choose an instance with as many GPUs as are used, and a batch_size that their number divides.",
        )


@dataclass(frozen=True)
class OverallSystemUsage(NamedRule):
    """Percentiles of all measures, for information; it never fires."""

    def __call__(self, profile: Profile) -> Finding:
        if not profile.samples:
            return skipped(self, "no system sample was recorded")
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
        return quiet(self, f"median / 95th percentile / maximum: {', '.join(parts)}")


def _gpus(samples: Sequence[SystemSample]) -> np.ndarray:
    """GPU utilization in percent: (num_samples, num_gpus)."""
    return np.array([sample.gpus for sample in samples])


def _unusable(samples: Sequence[SystemSample], *, needs_gpu: bool = False) -> str | None:
    """Why a rule cannot be evaluated on these samples; None if it can."""
    if needs_gpu and not any(sample.gpus for sample in samples):
        return _NO_GPU
    if len(samples) < _MIN_SAMPLES:
        return f"the training was too short: {len(samples)} samples, {_MIN_SAMPLES} are needed"
    return None

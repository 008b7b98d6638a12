"""What the GPU checks share: the device, photos, figures, programs and measured steps."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from classifier.callbacks import Callback
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, ImageLoader
from classifier.training.folders import list_channel
from classifier.training.loop import Trainer
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.plan import NUM_DRAWS, EpochPlan
from classifier.training.precision import Precision
from classifier.training.samples import SampleTable
from classifier.training.scan import scan_channel
from classifier.vision.artifact import Classifier
from classifier.vision.models import build
from classifier.vision.preprocessing import Preprocessing
from launch.local.opt_ml import lay_out

ROOT = Path(__file__).resolve().parents[2]
# What prepare.py collects for a machine without access to anything else.
CARRIED = ROOT / ".gpu"
SHARED = ROOT.parent / "shared"
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """The device that is checked, photos in ``train/``, ``validation/`` and ``test/``, and a folder of weights."""

    device: torch.device
    photos: Path
    weights: Path

    @property
    def on_gpu(self) -> bool:
        """False where the checks themselves are tried, on a CPU."""
        return self.device.type == "cuda"

    def size(self, on_gpu: T, on_cpu: T) -> T:
        """Return what suits the device: a CPU runs the same checks on less."""
        return on_gpu if self.on_gpu else on_cpu

    def channels(self) -> dict[str, Path]:
        """The channels of a job, its weights included."""
        names = ("train", "validation", "test")
        return {**{name: self.photos / name for name in names}, "pretrained": self.weights}

    def samples(self, executor: Executor, channel: str = "train", *, at_most: int | None = None) -> SampleTable:
        """The photos of a channel, or the first of them."""
        samples = scan_channel(list_channel(channel, self.photos / channel), executor, lambda: None).samples
        return samples.select(np.arange(min(len(samples), at_most or len(samples))))

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()


@dataclass
class Figures:
    """Measured values, printed as they come and kept in a JSON file, which is whole after each."""

    path: Path
    values: dict[str, object] = field(default_factory=dict)

    def record(self, name: str, value: float | str, unit: str = "") -> None:
        """Print a figure and write all so far."""
        self.values[name] = round(value, 4) if isinstance(value, float) else value
        print(f"figure      {name} = {self.values[name]} {unit}".rstrip(), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")

    def record_machine(self, target: Target) -> None:
        """Record what the figures were measured on."""
        self.record("python", platform.python_version())
        self.record("torch", torch.__version__)
        self.record("device", torch.cuda.get_device_name() if target.on_gpu else "CPU")
        self.record("cores", len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Program:
    """A finished ``train`` in a process of its own."""

    paths: Paths
    exit_code: int
    log: str
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.paths.model / "model.json").read_text(encoding="utf-8"))["metrics"]

    @property
    def profile(self) -> dict[str, object]:
        return json.loads((self.paths.output_data / "profiler.json").read_text(encoding="utf-8"))


DETERMINISTIC = """
import sys, torch
torch.use_deterministic_algorithms(True)
from classifier.train import main
sys.exit(main([]))
"""


def start_train(base: Path, code: str | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start ``train`` on a folder that is laid out, or other Python code in its place; its log is its output."""
    paths = [str(ROOT / "container"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONPATH": os.pathsep.join(paths), **environment}
    command = [sys.executable, "-u", *(["-c", code] if code else ["-m", "classifier.train"])]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], base: Path, *, timeout_s: float = 540) -> Program:
    """Wait for a started ``train``."""
    begun = time.monotonic()
    try:
        log, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        log, _ = process.communicate()
        raise AssertionError(f"train did not end within {timeout_s} s:\n{log}") from None
    return Program(Paths(base), process.returncode, log, time.monotonic() - begun)


def run_train(base: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str]) -> Program:
    """Lay out a job and run ``train``, which has to succeed."""
    lay_out(base, channels, hyperparameters)
    program = finish(start_train(base), base)
    assert program.exit_code == 0, program.log
    return program


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Wait for a line of the log that contains ``text``; the lines before it are lost."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"no line with {text!r}:\n{''.join(seen)}")


def stop(process: subprocess.Popen[str]) -> float:
    """Send SIGTERM and return the seconds until the process has ended; after 60 it is killed."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return time.monotonic() - begun


class Contiguous(Classifier):
    """A classifier whose activations are not channels last."""

    def normalize(self, pixels: Tensor) -> Tensor:
        return super().normalize(pixels).contiguous()


def build_trainer(
    target: Target,
    architecture: str,
    precision: str,
    *,
    side: int = 224,
    preset: str = "standard",
    optimizer: str = "sgd",
    channels_last: bool = True,
) -> Trainer:
    """Return a trainer of a network from scratch, with the settings of a training."""
    torch.manual_seed(0)
    network = build(architecture, num_classes=10, image_size=side)
    module = (Classifier if channels_last else Contiguous)(network, Preprocessing(resize=side + 32, crop=side))
    if not channels_last:
        module.network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    module.to(target.device)
    parameters = Hyperparameters.parse({"optimizer": optimizer, "lr": 1e-3, "epochs": 1})
    built = build_optimizer(module, parameters)
    return Trainer(
        module=module,
        trained=module,
        optimizer=built,
        schedule=build_schedule(built, parameters, 1000),
        criterion=nn.CrossEntropyLoss(label_smoothing=0.1).to(target.device),
        precision=Precision(target.device, precision),
        augmentation=PRESETS[preset],
    )


def synthetic_batch(target: Target, size: int, side: int = 224, num_classes: int = 10) -> Batch:
    """A batch as the loader makes it: on the host, page-locked."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator)
    tensors = pixels, torch.arange(size) % num_classes, torch.rand(size, NUM_DRAWS, generator=generator)
    pixels, labels, draws = (one.pin_memory() if target.on_gpu else one for one in tensors)
    return Batch(pixels.permute(0, 3, 1, 2), labels, draws)


def real_batches(
    target: Target, samples: SampleTable, executor: Executor, threads: int, size: int, preset: str = "standard"
) -> Iterator[Batch]:
    """Yield batches of photos read from their files, without an end."""
    loader = ImageLoader(
        samples.select(np.resize(np.arange(len(samples)), max(len(samples), 2 * size))),
        Preprocessing(resize=256, crop=224),
        PRESETS[preset],
        executor,
        threads,
        target.on_gpu,
    )
    plan = EpochPlan(len(loader), size, seed=0)
    endless = (indices for epoch in count(1) for indices in plan.batches(epoch))
    yield from loader.iterate(endless, seed=0, epoch=1)


def images_per_s(target: Target, trainer: Trainer, batches: Iterator[Batch], steps: int, warm_ups: int = 5) -> float:
    """Return the rate of training steps, after some that are not measured."""
    trainer.module.train()
    callback = Callback()
    for batch in islice(batches, warm_ups):
        trainer._train_step(batch, callback, len(batch.labels))
    target.synchronize()
    begun, images = time.perf_counter(), 0
    for batch in islice(batches, steps):
        trainer._train_step(batch, callback, len(batch.labels))
        images += len(batch.labels)
    target.synchronize()
    return images / (time.perf_counter() - begun)


def pixels_of(count_: int, side: int, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """Noise in 0–255, (N, S, S, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count_, side, side, 3)).astype(kind)

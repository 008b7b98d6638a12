"""Cost of ``profile=true``: training steps with and without it, in turn, in one process.

  PYTHONPATH=tests .venv/bin/python -m benchmarks.profiler --rounds 5

Trains a ResNet-18 on images in memory, and a head on features, whose steps take less than a millisecond (the worst
case). The ratios are medians over the rounds, since a machine's speed drifts. That of CPU time, summed over all
threads, is less sensitive to other processes than that of wall time. Both exclude the first steps, among which are
those whose operators are recorded; the cost of these and of writing files is reported separately, per training.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median

import torch
from torch import nn

from classifier.callbacks import CallbackList, TrainingContext
from classifier.contract.config import Channel, TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.host import tune_malloc
from classifier.profiling.profiler import profiled
from classifier.training.batches import Batch
from classifier.training.console import Console
from classifier.training.loop import Trainer
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.precision import choose_precision
from classifier.vision.models import build

_FIRST = 10


@dataclass(frozen=True)
class Case:
    """``num_steps`` steps of a module on batches of 32 inputs of a shape."""

    name: str
    module: Callable[[], nn.Module]
    shape: tuple[int, ...]
    num_steps: int


@dataclass(frozen=True)
class Round:
    """Wall and CPU time of a step, without the first ones, and CPU time of the rest of the training, in seconds."""

    step_s: float
    step_cpu_s: float
    rest_cpu_s: float


CASES = (
    Case("resnet18, 64 pixels", lambda: build("resnet18", num_classes=10, image_size=64), (3, 64, 64), 40),
    Case("a head on features", lambda: nn.Linear(1280, 10), (1280,), 3000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tune_malloc("training")
    for case in CASES:
        measure(case, is_profiled=True)  # warm-up: imports and allocations that happen once
        pairs = [(measure(case, is_profiled=False), measure(case, is_profiled=True)) for _ in range(options.rounds)]
        report(case, pairs)


def report(case: Case, pairs: Sequence[tuple[Round, Round]]) -> None:
    off, on = (median(1e3 * side.step_s for side in sides) for sides in zip(*pairs, strict=True))
    time_ratio = median(on.step_s / off.step_s for off, on in pairs)
    cpu_ratio = median(on.step_cpu_s / off.step_cpu_s for off, on in pairs)
    once = median(on.rest_cpu_s - off.rest_cpu_s for off, on in pairs)
    print(
        f"{case.name:20} off {off:8.3f} ms a step   profile=true {on:8.3f} ms   {time_ratio:.3f} × the time   "
        f"{cpu_ratio:.3f} × the CPU time   once a training {once:.2f} s of CPU",
        flush=True,
    )


def measure(case: Case, *, is_profiled: bool) -> Round:
    parameters, precision = Hyperparameters(profile=is_profiled, epochs=1), choose_precision("auto")
    torch.manual_seed(0)
    module = case.module().to(precision.device)
    optimizer, criterion = build_optimizer(module, parameters), nn.CrossEntropyLoss()
    schedule = build_schedule(optimizer, parameters, case.num_steps)
    trainer = Trainer(module, module, optimizer, schedule, criterion, precision, None)
    context = TrainingContext(
        network=module,
        module=module,
        trained=module,
        criterion=criterion,
        optimizer=optimizer,
        device=precision.device,
        num_epochs=1,
        steps_per_epoch=case.num_steps,
    )
    batch = Batch(torch.randn(32, *case.shape), torch.arange(32) % 10)
    moments: list[tuple[float, float]] = []
    began = time.process_time()
    config = TrainingConfig(parameters, channels={"train": Channel.model_validate({})})
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(StringIO()),
        profiled(config, Paths(Path(folder)), Console()) as profilers,
    ):
        callback = CallbackList(profilers, print)
        callback.on_train_begin(context)
        callback.on_epoch_begin("train", 1)
        trainer.train_epoch(
            [batch] * case.num_steps,
            advance=lambda: moments.append((time.perf_counter(), time.process_time())),
            callback=callback,
        )
        callback.on_train_end()
    (began_s, began_cpu_s), (ended_s, ended_cpu_s) = moments[_FIRST], moments[-1]
    num_steps = len(moments) - 1 - _FIRST
    steps_cpu_s = ended_cpu_s - began_cpu_s
    rest_cpu_s = time.process_time() - began - steps_cpu_s
    return Round((ended_s - began_s) / num_steps, steps_cpu_s / num_steps, rest_cpu_s)


if __name__ == "__main__":
    main()

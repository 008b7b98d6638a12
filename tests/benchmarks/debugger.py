"""Duration of a training step with the debugger, relative to one without.

    PYTHONPATH=tests .venv/bin/python -m benchmarks.debugger

Runs blocks of steps in turn on the same network and batch, through the container's training loop: without the debugger
and with one that saves nothing. Then come blocks that save every tensor. Prints medians and their ratios.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from classifier.callbacks import Callback, CallbackList, TrainingContext
from classifier.contract.config import HookConfig
from classifier.debugging.debugger import Debugger
from classifier.debugging.settings import DebuggerSettings
from classifier.training.batches import Batch
from classifier.training.loop import Trainer
from classifier.training.precision import Precision
from classifier.vision.models import build

STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = build(options.model, num_classes=10, image_size=options.image_size)
    batch = Batch(
        torch.randn(options.batch_size, 3, options.image_size, options.image_size),
        torch.randint(10, (options.batch_size,)),
    )
    trainer = _trainer(network)
    with tempfile.TemporaryDirectory() as folder:
        idle = _debugger(Path(folder) / "idle", trainer, save_interval="1000000000")
        saving = _debugger(Path(folder) / "saving", trainer, save_interval="1")
        for callback in (idle, saving):
            _steps(trainer, batch, callback)  # the very first step is always saved
        times: dict[str, list[float]] = {"off": [], "idle": [], "saving": []}
        for _ in range(options.rounds):
            times["off"].append(_steps(trainer, batch, CallbackList([], print)))
            times["idle"].append(_steps(trainer, batch, idle))
        for _ in range(max(1, options.rounds // 10)):
            times["saving"].append(_steps(trainer, batch, saving))
        idle.on_train_end()
        saving.on_train_end()
    off_ms, idle_ms, saving_ms = (1000 * median(values) / STEPS for values in times.values())
    print(f"{options.model}, {options.image_size} px, batches of {options.batch_size}; medians of {options.rounds}")
    print(f"step without the debugger          {off_ms:7.1f} ms")
    print(f"debugger on, nothing saved         {idle_ms:7.1f} ms   {idle_ms / off_ms:.3f} times")
    print(f"weights, gradients, losses saved   {saving_ms:7.1f} ms   {saving_ms / off_ms:.3f} times")


def _trainer(network: nn.Module) -> Trainer:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    return Trainer(
        module=network,
        trained=network,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        criterion=nn.CrossEntropyLoss(),
        precision=Precision(torch.device("cpu"), "fp32"),
        augmentation=None,
    )


def _debugger(folder: Path, trainer: Trainer, **hook: str) -> Callback:
    names = ("losses", "weights", "biases", "gradients")
    collections = [{"CollectionName": name, "CollectionParameters": {"reductions": "mean,l2_norm"}} for name in names]
    config = HookConfig.model_validate({"HookParameters": hook, "CollectionConfigurations": collections})
    silent: Callable[[str], None] = lambda _: None  # noqa: E731
    debugger = Debugger(DebuggerSettings(folder=folder, hook=config), folder / "data", silent)
    callbacks = CallbackList([debugger], print)
    callbacks.on_train_begin(
        TrainingContext(
            network=trainer.module,
            module=trainer.module,
            trained=trainer.trained,
            criterion=trainer.criterion,
            optimizer=trainer.optimizer,
            device=torch.device("cpu"),
            num_epochs=1,
            steps_per_epoch=STEPS,
        )
    )
    callbacks.on_epoch_begin("train", 1)
    return callbacks


def _steps(trainer: Trainer, batch: Batch, callback: Callback) -> float:
    """Return the seconds that ``STEPS`` steps take."""
    began = time.perf_counter()
    trainer.train_epoch([batch] * STEPS, advance=lambda: None, callback=callback)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

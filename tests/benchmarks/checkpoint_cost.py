"""What a checkpoint costs a training: seconds that steps take longer while one is taken and written.

  PYTHONPATH=tests:scripts .venv/bin/python -m benchmarks.checkpoint_cost

ResNet-18 with AdamW at 224 pixels, 32 photos a step, in float32: 45 MB of weights, and four times as much in a
checkpoint with the optimizer's state and the best weights. Rounds of the same steps with and without one alternate.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn

from classifier.callbacks import EpochResult
from classifier.contract.hyperparameters import Hyperparameters
from classifier.training.batches import Batch
from classifier.training.checkpoints import CheckpointFolder, CheckpointSaver, Position
from classifier.training.loop import EvaluationResult, Trainer
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.precision import Precision
from classifier.training.state import BestEpoch, Identity, TrainingState, pack, weights_of
from classifier.vision.artifact import Classifier
from classifier.vision.models import build, preprocessing_for

SIDE, BATCH_SIZE, NUM_CLASSES = 224, 32, 10


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds.

    Attributes:
        training_s: that the training is later by for one checkpoint.
        saving_s: from taking the state to the synced file.
        spacing_s: shortest time between checkpoints at the ends of epochs.
        num_bytes: of the file.
    """

    training_s: float
    saving_s: float
    spacing_s: float
    num_bytes: int

    def shares(self, interval_s: float) -> Mapping[str, float]:
        """Return the shares of the training time: as often as epochs may end, and at the interval."""
        return {
            "checkpoint_share_at_most": max(0.0, self.training_s) / self.spacing_s,
            "checkpoint_share_at_interval": max(0.0, self.training_s) / interval_s,
        }


def measure(rounds: int, num_steps: int) -> Cost:
    """Measure the cost of a checkpoint on this machine."""
    trainer = _trainer()
    batch = Batch(
        torch.randint(256, (BATCH_SIZE, 3, SIDE, SIDE), dtype=torch.uint8).to(memory_format=torch.channels_last),
        torch.arange(BATCH_SIZE) % NUM_CLASSES,
    )
    _run(trainer, batch, 3)
    state, extra, saving, spacing = _state(trainer), list[float](), list[float](), list[float]()
    identity = Identity(hyperparameters={}, classes=(), data="", weights="")
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            plain_s = _run(trainer, batch, num_steps)
            saver = CheckpointSaver(CheckpointFolder(Path(name), print), interval_s=600, warn=print)
            started = time.perf_counter()
            saver.save(lambda: pack(trainer, state, identity, {}))
            taken_s = time.perf_counter() - started
            saved_s = taken_s + _run(trainer, batch, num_steps)
            saver.close()
            extra.append(saved_s - plain_s)
            saving.append(saver.cost_s)
            spacing.append(saver.spacing_s)
        num_bytes = next(Path(name).glob("*.safetensors")).stat().st_size
    return Cost(median(extra), median(saving), median(spacing), num_bytes)


def show(cost: Cost) -> None:
    """Print the cost in a line."""
    shares = cost.shares(Hyperparameters().checkpoint_interval_s)
    print(
        f"a checkpoint of {cost.num_bytes / 1e6:.0f} MB delays the training by {cost.training_s:.2f} s and is written "
        f"within {cost.saving_s:.2f} s: {shares['checkpoint_share_at_interval']:.2%} of the time at one every 600 s, "
        f"{shares['checkpoint_share_at_most']:.2%} where epochs end at least every {cost.spacing_s:.0f} s"
    )


def _trainer() -> Trainer:
    torch.manual_seed(0)
    network = build("resnet18", num_classes=NUM_CLASSES, image_size=SIDE)
    module, parameters = Classifier(network, preprocessing_for("resnet18", SIDE)), Hyperparameters(epochs=1000)
    optimizer = build_optimizer(module, parameters)
    schedule = build_schedule(optimizer, parameters, 1000)
    precision = Precision(torch.device("cpu"), "fp32")
    return Trainer(module, module, optimizer, schedule, nn.CrossEntropyLoss(), precision, augmentation=None)


def _state(trainer: Trainer) -> TrainingState:
    epoch = EpochResult(number=1, metrics={}, lr=0.1, seconds=1.0, is_best=True)
    logits, labels = torch.zeros(100, NUM_CLASSES), torch.zeros(100, dtype=torch.int64)
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    evaluation = EvaluationResult(0, 0, 0, 0, confusion=confusion, logits=logits, labels=labels)
    return TrainingState(Position(2, 0), epoch, BestEpoch(epoch, evaluation, weights_of(trainer.trained)), {})


def _run(trainer: Trainer, batch: Batch, num_steps: int) -> float:
    started = time.perf_counter()
    trainer.train_epoch([batch] * num_steps, advance=lambda: None)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    show(measure(options.rounds, options.steps))


if __name__ == "__main__":
    main()

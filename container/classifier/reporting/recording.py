"""Always looking on: each step's loss, and what was predicted for each photo. No step waits for the device."""

import csv
import time
from pathlib import Path

import torch
from torch import Tensor

from classifier.observer import Mode, Observer, Scene
from classifier.reporting.photos import Predictions
from classifier.reporting.tensorboard import EventFile

STEP_COLUMNS = ("step", "epoch", "loss", "accuracy", "lr")


class StepRecorder(Observer):
    """Each training step's figures → ``steps.csv`` and TensorBoard's events, an epoch at a time; steps count from 0."""

    def __init__(self, path: Path, events: EventFile) -> None:
        self._path = path
        self._events = events
        self._optimizer: torch.optim.Optimizer | None = None
        self._mode: Mode | None = None
        self._epoch = 0
        self._num_written = 0
        self._outputs: list[tuple[Tensor, Tensor]] = []  # loss, accuracy; on the device until the epoch ends
        self._lrs: list[float] = []
        self._times: list[float] = []

    def begin(self, scene: Scene) -> None:
        self._optimizer = scene.optimizer
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(STEP_COLUMNS)

    def begin_epoch(self, mode: Mode, number: int) -> None:
        self._write()
        self._mode, self._epoch = mode, number

    def see_outputs(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        if self._mode == "train" and self._optimizer is not None:
            self._outputs.append((loss, (logits.argmax(dim=1) == labels).float().mean()))
            self._lrs.append(self._optimizer.param_groups[0]["lr"])
            self._times.append(time.time())

    def end_epoch(self, metrics: dict[str, float]) -> None:
        # Each step's training loss is told already.
        scalars = {name.replace(":", "/"): value for name, value in metrics.items() if not name.startswith("train:")}
        self._events.add(max(0, self._num_written - 1), scalars, time.time())
        self._events.flush()

    def end(self) -> None:
        self._write()
        self._events.close()

    def _write(self) -> None:
        if not self._outputs:
            return
        values = torch.stack([torch.stack(pair) for pair in self._outputs]).tolist()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for (loss, accuracy), lr, at in zip(values, self._lrs, self._times, strict=True):
                writer.writerow((self._num_written, self._epoch, f"{loss:.7g}", f"{accuracy:.4g}", f"{lr:.7g}"))
                scalars = {"train/loss": loss, "train/accuracy": accuracy, "train/learning_rate": lr}
                self._events.add(self._num_written, scalars, at)
                self._num_written += 1
        self._events.flush()
        self._outputs, self._lrs, self._times = [], [], []


class PredictionRecorder(Observer):
    """Keeps the predictions of the best epoch's validation and of the test, 20 bytes a photo."""

    def __init__(self) -> None:
        self.validation: Predictions | None = None
        self.test: Predictions | None = None
        self._pass: tuple[Mode | None, int] = (None, 0)
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep_validation(self, epoch: int) -> None:
        """To be called when an epoch turned out to be the best so far, before the next begins."""
        if self._pass == ("validation", epoch):
            self.validation = self._predictions()

    def begin_epoch(self, mode: Mode, number: int) -> None:
        self._pass, self._batches = (mode, number), []

    def see_outputs(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:  # noqa: ARG002 - as its base says
        if self._pass[0] != "train":
            confidence, predicted = logits.softmax(dim=1).max(dim=1)
            self._batches.append((labels, predicted, confidence))

    def end_epoch(self, metrics: dict[str, float]) -> None:  # noqa: ARG002 - as its base says
        if self._pass[0] == "test":
            self.test = self._predictions()

    def _predictions(self) -> Predictions | None:
        if not self._batches:
            return None
        labels, predicted, confidence = (torch.cat(parts).cpu().numpy() for parts in zip(*self._batches, strict=True))
        return Predictions(labels, predicted, confidence)

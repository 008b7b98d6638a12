"""Always looking on: each step's loss, and what was predicted for each photo. No step waits for the device."""

import csv
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.callbacks import Callback, Mode, TrainingContext
from classifier.reporting.photos import PhotoFile, Predictions, write_mistakes
from classifier.reporting.summary import HISTORY_FILE, SUMMARY_FILE, Summary
from classifier.reporting.tables import (
    class_scores,
    write_classes,
    write_confusion,
    write_history,
    write_json,
    write_metrics,
)
from classifier.reporting.tensorboard import EventFile

STEP_COLUMNS = ("step", "epoch", "loss", "accuracy", "lr")


class StepRecorder(Callback):
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

    def on_train_begin(self, context: TrainingContext) -> None:
        self._optimizer = context.optimizer
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(STEP_COLUMNS)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        self._write()
        self._mode, self._epoch = mode, number

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        if self._mode == "train" and self._optimizer is not None:
            self._outputs.append((loss, (logits.argmax(dim=1) == labels).float().mean()))
            self._lrs.append(self._optimizer.param_groups[0]["lr"])
            self._times.append(time.time())

    def on_epoch_end(self, metrics: dict[str, float]) -> None:
        # Each step's training loss is told already.
        scalars = {name.replace(":", "/"): value for name, value in metrics.items() if not name.startswith("train:")}
        self._events.add(max(0, self._num_written - 1), scalars, time.time())
        self._events.flush()

    def on_train_end(self) -> None:
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


class PredictionRecorder(Callback):
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

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        self._pass, self._batches = (mode, number), []

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:  # noqa: ARG002 - as its base says
        if self._pass[0] != "train":
            confidence, predicted = logits.softmax(dim=1).max(dim=1)
            self._batches.append((labels, predicted, confidence))

    def on_epoch_end(self, metrics: dict[str, float]) -> None:  # noqa: ARG002 - as its base says
        if self._pass[0] == "test":
            self.test = self._predictions()

    def _predictions(self) -> Predictions | None:
        if not self._batches:
            return None
        labels, predicted, confidence = (torch.cat(parts).cpu().numpy() for parts in zip(*self._batches, strict=True))
        return Predictions(labels, predicted, confidence)


class Record:
    """Looks on while a training runs, and writes what there is to tell of it."""

    def __init__(self, folder: Path, tensorboard: Path) -> None:
        self.folder = folder
        self._steps = StepRecorder(folder / "steps.csv", EventFile(tensorboard))
        self._predictions = PredictionRecorder()

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        return self._steps, self._predictions

    def keep_epoch(
        self, rows: Sequence[Mapping[str, float]], metrics: Mapping[str, float], best_epoch: int | None
    ) -> None:
        """After each epoch: nothing is lost when a job dies."""
        write_history(self.folder / HISTORY_FILE, rows)
        write_metrics(self.folder / "metrics.json", metrics)
        if best_epoch is not None:
            self._predictions.keep_validation(best_epoch)

    def finish(
        self,
        summary: Summary,
        *,
        confusion: np.ndarray | None,
        photos: Sequence[PhotoFile],
        engines: Sequence[Mapping[str, object]],
        warn: Callable[[str], None],
    ) -> None:
        """At the end. What can't be written is told to ``warn``, and the rest is written all the same.

        Args:
            confusion: counts (true class, predicted class) of the channel ``summary.judged_on``; ``photos`` are its.
        """
        names, predictions = summary.classes, self._predictions
        seen = predictions.test if summary.judged_on == "test" else predictions.validation
        writings: dict[str, Callable[[], None]] = {
            SUMMARY_FILE: lambda: summary.write(self.folder / SUMMARY_FILE),
        }
        if confusion is not None:
            writings["confusion.csv"] = lambda: write_confusion(self.folder / "confusion.csv", confusion, names)
            scores = class_scores(confusion, names)
            writings["classes.csv"] = lambda: write_classes(self.folder / "classes.csv", scores)
        if seen is not None and len(seen.labels) == len(photos):
            channel = summary.judged_on
            writings["mistakes.json"] = lambda: write_mistakes(self.folder, channel, seen, photos, names)
        if engines:
            writings["engines.json"] = lambda: write_json(self.folder / "engines.json", list(engines))
        for name, write in writings.items():
            try:
                write()
            except Exception:
                warn(f"{name} could not be written; the model is not affected\n{traceback.format_exc()}")

"""Callbacks that record a training, and the files of ``output/data`` that are written at its end.

No step waits for the device: losses and predictions stay there until the epoch ends.
"""

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classifier.callbacks import Callback, CallbackList, EpochResult, Mode, Phase, TrainingContext
from classifier.errors import failure_as_warning
from classifier.reporting.results import (
    PhotoFile,
    Predictions,
    class_scores,
    write_classes,
    write_confusion,
    write_history,
    write_json,
    write_metrics,
    write_mistakes,
)
from classifier.reporting.summary import HISTORY_FILE, SUMMARY_FILE, Summary
from classifier.reporting.tensorboard import EventFile

STEP_COLUMNS = ("step", "epoch", "loss", "accuracy", "lr")
# The names of the recorders' states.
_STEPS, _EVENTS, _HISTORY = "steps.csv", "events", "history.json"
_NULL_CONTEXT = nullcontext()


class StepRecorder(Callback):
    """Writes each training step's loss, accuracy and learning rate to ``steps.csv`` and to TensorBoard's event file.

    Rows are written an epoch at a time; steps count from 0. Validation and test metrics go to the event file alone.
    A resumed training replaces both files by those of its checkpoint, which ends where it resumes.
    """

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
        self._path.write_bytes(context.state.get(_STEPS, f"{','.join(STEP_COLUMNS)}\r\n".encode()))
        self._num_written = self._path.read_bytes().count(b"\n") - 1
        if _EVENTS in context.state:
            self._events.restore(context.state[_EVENTS])

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        self._write_steps()
        self._mode, self._epoch = mode, number

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        if self._mode == "train" and self._optimizer is not None:
            self._outputs.append((loss, (logits.argmax(dim=1) == labels).float().mean()))
            self._lrs.append(self._optimizer.param_groups[0]["lr"])
            self._times.append(time.time())

    def on_epoch_end(self, result: EpochResult) -> None:
        self._add_scalars(result.metrics)

    def on_test_end(self, metrics: Mapping[str, float]) -> None:
        self._add_scalars(metrics)

    def on_train_end(self) -> None:
        self._write_steps()
        self._events.close()

    def state(self) -> Mapping[str, bytes]:
        self._write_steps()
        return {_STEPS: self._path.read_bytes(), _EVENTS: self._events.content()}

    def _add_scalars(self, metrics: Mapping[str, float]) -> None:
        # The training loss is there already, step by step.
        scalars = {name.replace(":", "/"): value for name, value in metrics.items() if not name.startswith("train:")}
        self._events.add(max(0, self._num_written - 1), scalars, time.time())
        self._events.flush()

    def _write_steps(self) -> None:
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


class HistoryRecorder(Callback):
    """Writes ``history.csv`` and ``metrics.json`` after every epoch, so that a job that dies leaves them behind."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[dict[str, float]] = []
        self._folder = folder
        self._metrics: dict[str, float] = {}  # of the best epoch and of the test

    def on_train_begin(self, context: TrainingContext) -> None:
        if _HISTORY in context.state:
            self.rows, self._metrics = json.loads(context.state[_HISTORY])
            self.write()

    def state(self) -> Mapping[str, bytes]:
        return {_HISTORY: json.dumps([self.rows, self._metrics]).encode()}

    def on_epoch_end(self, result: EpochResult) -> None:
        self.rows.append(result.row())
        if result.is_best:
            self._metrics.update(result.metrics)
        self.write()

    def on_test_end(self, metrics: Mapping[str, float]) -> None:
        self._metrics.update(metrics)
        self.write()

    def write(self) -> None:
        """Write both files as they are so far."""
        write_history(self._folder / HISTORY_FILE, self.rows)
        write_metrics(self._folder / "metrics.json", self._metrics)


class Recorder(CallbackList):
    """Records a training in ``folder``. A part that fails is a warning, and the other parts keep recording."""

    def __init__(self, folder: Path, tensorboard: Path, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._warn = warn
        self._history = HistoryRecorder(folder)
        steps = StepRecorder(folder / "steps.csv", EventFile(tensorboard))
        super().__init__([steps, self._history], warn)

    def phase(self, name: Phase) -> AbstractContextManager[Any]:  # noqa: ARG002 - the base's signature
        """Return a context manager that does nothing: no part of it measures phases, which every step enters."""
        return _NULL_CONTEXT

    def finish(
        self,
        summary: Summary,
        *,
        confusion: np.ndarray | None,
        predictions: Predictions | None,
        photos: Sequence[PhotoFile],
        engines: Sequence[Mapping[str, object]],
    ) -> None:
        """Write the files that describe the finished training. A file that can't be written is a warning.

        Args:
            summary: written as ``training.json``.
            confusion: photo counts (true class, predicted class) of the channel ``summary.judged_on``; int (C, C).
            predictions: for the photos of the same channel.
            photos: those of the channel, in the order of the predictions.
            engines: the rows of ``engines.json``; empty if the model was not converted.
        """
        folder, names, channel = self._folder, summary.classes, summary.judged_on
        steps: dict[str, Callable[[], None]] = {
            SUMMARY_FILE: lambda: summary.write(folder / SUMMARY_FILE),
            HISTORY_FILE: self._history.write,
        }
        if confusion is not None:
            steps["confusion.csv"] = lambda: write_confusion(folder / "confusion.csv", confusion, names)
            steps["classes.csv"] = lambda: write_classes(folder / "classes.csv", class_scores(confusion, names))
            steps["a plot"] = lambda: self._plot(summary, confusion)
        if predictions is not None:
            steps["mistakes.json"] = lambda: write_mistakes(folder, channel, predictions, photos, names)
        if engines:
            steps["engines.json"] = lambda: write_json(folder / "engines.json", list(engines))
        for name, write in steps.items():
            with failure_as_warning(self._warn, f"{name} could not be written"):
                write()

    def _plot(self, summary: Summary, confusion: np.ndarray) -> None:
        from classifier.reporting.plots import plot_confusion, plot_curves  # noqa: PLC0415 - imports matplotlib

        plot_curves(self._folder / "curves.png", self._history.rows, summary.best_epoch)
        title = f"Confusion on {summary.judged_on}, {confusion.sum():,} photos"
        plot_confusion(self._folder / "confusion_matrix.png", confusion, summary.classes, title)

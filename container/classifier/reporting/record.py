"""What a training leaves in ``output/data``, as it goes and at its end; the page is made of these files alone."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from classifier.observer import Observer
from classifier.reporting.photos import Photo, write_mistakes
from classifier.reporting.recording import PredictionRecorder, StepRecorder
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


class Record:
    """Looks on while a training runs, and writes what there is to tell of it."""

    def __init__(self, folder: Path, tensorboard: Path) -> None:
        self.folder = folder
        self._steps = StepRecorder(folder / "steps.csv", EventFile(tensorboard))
        self._predictions = PredictionRecorder()

    @property
    def observers(self) -> tuple[Observer, ...]:
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
        photos: Sequence[Photo],
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

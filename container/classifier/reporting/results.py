"""Result files of a training: tables of metrics in CSV and JSON, and example predictions with thumbnails."""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from classifier.errors import ImageError
from classifier.vision.calibration import softmax
from classifier.vision.images import decode

NUM_WRONG, NUM_RIGHT = 24, 6
_THUMBNAIL_SIDE = 240  # pixels


def write_history(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write one row per epoch, with the columns of the first row. The file is replaced atomically."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Write the metrics of the best epoch and of the test by name."""
    write_json(path, dict(metrics))


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class; 0 where the denominator is 0.

    Attributes:
        support: number of photos of the class.
        predicted: number of photos predicted as the class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


def class_scores(confusion: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """Compute the scores of each class from a confusion matrix.

    Args:
        confusion: counts (true class, predicted class), integers (C, C).
        names: the display names of the C classes.
    """
    right, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    columns = (names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), predicted.tolist())
    return [ClassScore(*row) for row in zip(*columns, strict=True)]


def write_classes(path: Path, scores: Sequence[ClassScore]) -> None:
    """Write ``classes.csv``, one row per class."""
    header = ("class", "precision", "recall", "f1", "support", "predicted")
    rows = [
        (score.name, f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}", score.support, score.predicted)
        for score in scores
    ]
    _write_csv(path, [header, *rows])


def write_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> None:
    """Write ``confusion.csv``: one row per true class, one column per predicted class; counts (C, C)."""
    rows = [(name, *counts) for name, counts in zip(names, confusion.tolist(), strict=True)]
    _write_csv(path, [("true", *names), *rows])


@dataclass(frozen=True)
class Predictions:
    """Predictions for the photos of a channel, in the channel's order.

    Attributes:
        labels: true classes, integers (N,).
        predicted: predicted classes, integers (N,).
        confidence: calibrated probabilities of the predicted classes, floats (N,).
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray, temperature: float) -> "Predictions":
        """Classify photos by their logits, float32 (N, num_classes)."""
        return cls(labels, logits.argmax(axis=1), softmax(logits, temperature).max(axis=1))


class PhotoFile(Protocol):
    """A photo: its name relative to the channel, and its encoded bytes."""

    @property
    def name(self) -> str: ...

    def read(self) -> bytes: ...


class Examples(NamedTuple):
    """Indices of photos in their channel."""

    wrong: list[int]
    right: list[int]


def select_examples(predictions: Predictions) -> Examples:
    """Select the most confident mistakes, most confident first, and correct predictions spread over the channel."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:NUM_WRONG]
    right = np.flatnonzero(predictions.labels == predictions.predicted)
    spread = right[np.unique(np.linspace(0, len(right) - 1, NUM_RIGHT).round().astype(int))] if len(right) else right
    return Examples(worst.tolist(), spread.tolist())


def write_mistakes(
    folder: Path, channel: str, predictions: Predictions, photos: Sequence[PhotoFile], names: Sequence[str]
) -> None:
    """Write ``mistakes.json`` and the thumbnails. An unreadable photo is listed without a thumbnail.

    Args:
        folder: the job's ``output/data``.
        photos: the photos of the channel, in the order of the predictions.
        names: the display names of the classes.
    """
    shutil.rmtree(folder / "mistakes", ignore_errors=True)
    examples = select_examples(predictions)
    rows = []
    for number, index in enumerate([*examples.wrong, *examples.right], start=1):
        thumbnail = f"mistakes/{number:02}.jpg"
        rows.append(
            {
                "path": photos[index].name,
                "true": names[predictions.labels[index]],
                "predicted": names[predictions.predicted[index]],
                "confidence": round(float(predictions.confidence[index]), 4),
                "right": index in examples.right,
                "thumbnail": thumbnail if _write_thumbnail(photos[index], folder / thumbnail) else None,
            }
        )
    num_wrong = int((predictions.labels != predictions.predicted).sum())
    content = {"channel": channel, "num_photos": len(predictions.labels), "num_wrong": num_wrong, "photos": rows}
    write_json(folder / "mistakes.json", content)


def _write_thumbnail(photo: PhotoFile, target: Path) -> bool:
    try:
        image = decode(photo.read(), cover=_THUMBNAIL_SIDE)
    except (OSError, ImageError):
        return False
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=82)
    return True


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

"""Tables of metrics, in CSV and JSON files."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

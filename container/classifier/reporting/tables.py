"""Numbers → CSV and JSON files."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def write_history(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """A row an epoch, with the first row's columns. Replaced as a whole, so that it is never half a file."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """The metrics of the best epoch and of the test, by their names in the metric table."""
    write_json(path, dict(metrics))


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told: as the field defines them, and 0 where there is nothing to divide by."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # photos of it
    predicted: int  # photos taken for it


def class_scores(confusion: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """Counts (true class, predicted class) → a score a class."""
    right, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    columns = (names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), predicted.tolist())
    return [ClassScore(*row) for row in zip(*columns, strict=True)]


def write_classes(path: Path, scores: Sequence[ClassScore]) -> None:
    """``classes.csv``: a row a class."""
    header = ("class", "precision", "recall", "f1", "support", "predicted")
    rows = [
        (one.name, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", one.support, one.predicted)
        for one in scores
    ]
    _write_csv(path, [header, *rows])


def write_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> None:
    """``confusion.csv``: a row a true class, a column a predicted one."""
    rows = [(name, *counts) for name, counts in zip(names, confusion.tolist(), strict=True)]
    _write_csv(path, [("true", *names), *rows])


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

"""Result files: metrics in CSV and JSON, and the selection of example predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from classifier.reporting.results import (
    NUM_RIGHT,
    NUM_WRONG,
    Predictions,
    class_scores,
    select_examples,
    write_history,
    write_metrics,
)

ROWS = [{"epoch": 1, "train:loss": 0.1 + 0.2, "lr": 1e-7}, {"epoch": 2, "train:loss": 0.25, "lr": 1e-8}]


def test_history_is_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.csv"
    write_history(path, ROWS)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == ROWS


def test_history_is_replaced_without_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, ROWS)
    write_history(path, ROWS[:1])
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_history_without_epochs_is_empty(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [])
    assert (tmp_path / "history.csv").read_text(encoding="utf-8").strip() == ""


@pytest.mark.parametrize("metrics", [{}, {"test:accuracy": 0.1 + 0.2, "validation:loss": 1e-7}])
def test_metrics_are_json_by_name(tmp_path: Path, metrics: dict[str, float]) -> None:
    write_metrics(tmp_path / "new" / "metrics.json", metrics)
    assert json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_class_scores_are_computed_from_the_confusion_matrix() -> None:
    confusion = np.array([[8, 2, 0], [4, 6, 0], [0, 0, 0]])
    first, second, empty = class_scores(confusion, ["a", "b", "c"])
    assert (first.name, first.support, first.predicted) == ("a", 10, 12)
    assert (first.precision, first.recall, first.f1) == pytest.approx((8 / 12, 0.8, 16 / 22))
    assert (second.precision, second.recall, second.f1) == pytest.approx((6 / 8, 0.6, 12 / 18))
    assert (empty.precision, empty.recall, empty.f1, empty.support) == (0, 0, 0, 0)


def predictions(labels: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    return Predictions(np.array(labels), np.array(predicted), np.array(confidence, dtype=np.float32))


def test_mistakes_are_ordered_by_confidence() -> None:
    examples = select_examples(predictions([0, 0, 1, 1], [1, 0, 0, 0], [0.6, 0.9, 0.8, 0.6]))
    assert examples.wrong == [2, 0, 3]
    assert examples.right == [1]


def test_numbers_of_examples_are_limited_and_correct_ones_are_spread_over_the_channel() -> None:
    examples = select_examples(predictions([0] * 200, [1] * 100 + [0] * 100, [0.5] * 200))
    assert examples.wrong == list(range(NUM_WRONG))
    assert len(examples.right) == NUM_RIGHT
    assert (examples.right[0], examples.right[-1]) == (100, 199)


def test_no_predictions_give_no_examples() -> None:
    assert select_examples(predictions([], [], [])) == ([], [])

"""Numbers that other programs read."""

import csv
import json
from pathlib import Path

import pytest

from classifier.reporting.tables import write_history, write_metrics

ROWS = [{"epoch": 1, "train:loss": 0.1 + 0.2, "lr": 1e-7}, {"epoch": 2, "train:loss": 0.25, "lr": 1e-8}]


def test_the_history_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.csv"
    write_history(path, ROWS)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == ROWS


def test_the_history_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, ROWS)
    write_history(path, ROWS[:1])
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_no_epochs_are_an_empty_history(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [])
    assert (tmp_path / "history.csv").read_text(encoding="utf-8").strip() == ""


@pytest.mark.parametrize("metrics", [{}, {"test:accuracy": 0.1 + 0.2, "validation:loss": 1e-7}])
def test_metrics_are_json_by_their_names(tmp_path: Path, metrics: dict[str, float]) -> None:
    write_metrics(tmp_path / "new" / "metrics.json", metrics)
    assert json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8")) == metrics

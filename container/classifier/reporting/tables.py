"""Numbers → ``history.csv`` and ``metrics.json``."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")

"""Trials as values, whoever ran them; their table as CSV; the best of them, and what it trained with."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from classifier.contract.metrics import Metric

# The columns of the SageMaker SDK's HyperparameterTuningJobAnalytics, after the hyperparameters.
COLUMNS = (
    "TrainingJobName",
    "TrainingJobStatus",
    "FinalObjectiveValue",
    "TrainingStartTime",
    "TrainingEndTime",
    "TrainingElapsedTimeSeconds",
)
RUNNING = ("InProgress", "Stopping")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training job of a tuning job; ``status`` is the API's, ``history`` the objective after each epoch so far."""

    name: str
    status: str
    parameters: Mapping[str, str]
    objective: float | None = None
    started: datetime | None = None
    ended: datetime | None = None
    failure: str | None = None
    history: tuple[float, ...] = ()

    @property
    def is_running(self) -> bool:
        return self.status in RUNNING

    @property
    def seconds(self) -> float | None:
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


def from_summary(summary: Mapping[str, Any]) -> Trial:
    """An entry of ListTrainingJobsForHyperParameterTuningJob → a trial."""
    objective = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
    return Trial(
        name=summary["TrainingJobName"],
        status=summary["TrainingJobStatus"],
        parameters=dict(summary.get("TunedHyperParameters", {})),
        objective=None if objective is None else _as_printed(objective),
        started=summary.get("TrainingStartTime"),
        ended=summary.get("TrainingEndTime"),
        failure=summary.get("FailureReason"),
    )


def _as_printed(value: float) -> float:
    """The API keeps 32 bits of a metric: 0.9632999897003174 was printed as 0.9633."""
    return float(f"{value:.7g}")


def best_trial(trials: Iterable[Trial], metric: Metric) -> Trial | None:
    """The completed trial with the best objective; of equals the first."""
    best: Trial | None = None
    for trial in trials:
        if trial.status != "Completed" or trial.objective is None or not isfinite(trial.objective):
            continue
        if best is None or best.objective is None or metric.is_better(trial.objective, best.objective):
            best = trial
    return best


def write_csv(path: Path, trials: Iterable[Trial], names: Sequence[str]) -> None:
    """A row a trial, with the SageMaker SDK's columns; times in ISO 8601."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*names, *COLUMNS])
        writer.writeheader()
        writer.writerows(_row(trial) for trial in trials)


def _row(trial: Trial) -> dict[str, object]:
    values = (
        trial.name,
        trial.status,
        trial.objective,
        trial.started and trial.started.isoformat(sep=" ", timespec="seconds"),
        trial.ended and trial.ended.isoformat(sep=" ", timespec="seconds"),
        trial.seconds,
    )
    row = dict(zip(COLUMNS, values, strict=True))
    return {**trial.parameters, **{name: "" if value is None else value for name, value in row.items()}}


def write_best(path: Path, best: Trial, static: Mapping[str, str]) -> None:
    """All that the best trial was told, as ``train.py --hyperparameters`` and ``train_local.sh`` take it."""
    path.write_text(json.dumps({**static, **best.parameters}, indent=2) + "\n", encoding="utf-8")

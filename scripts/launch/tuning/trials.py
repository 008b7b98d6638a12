"""Trials of a tuning job, local or on AWS: values, CSV table, and the best one."""

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
    """A training job of a tuning job.

    Attributes:
        status: the API's ``TrainingJobStatus``.
        parameters: the tuned hyperparameters.
        objective: the final value; for a stopped trial, the last one.
        history: the objective after each epoch so far; empty for trials on AWS.
    """

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
        """The duration, once the trial has ended."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


def from_summary(summary: Mapping[str, Any]) -> Trial:
    """Convert an entry of ``ListTrainingJobsForHyperParameterTuningJob``."""
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
    """Undo the API's rounding to 32 bits: 0.9632999897003174 was logged as 0.9633."""
    return float(f"{value:.7g}")


def best_trial(trials: Iterable[Trial], metric: Metric) -> Trial | None:
    """Return the completed trial with the best finite objective, the first among equals."""
    best: Trial | None = None
    for trial in trials:
        if trial.status != "Completed" or trial.objective is None or not isfinite(trial.objective):
            continue
        if best is None or best.objective is None or metric.is_better(trial.objective, best.objective):
            best = trial
    return best


def write_csv(path: Path, trials: Iterable[Trial], names: Sequence[str]) -> None:
    """Write one row per trial, with the SageMaker SDK's columns; times are in ISO 8601.

    Args:
        names: the tuned hyperparameters, whose columns come first.
    """
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


def read_csv(path: Path) -> list[Trial]:
    """Read the names, statuses, parameters and objectives from a table of :func:`write_csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Trial(
                name=row["TrainingJobName"],
                status=row["TrainingJobStatus"],
                parameters={name: value for name, value in row.items() if name not in COLUMNS},
                objective=float(row["FinalObjectiveValue"]) if row["FinalObjectiveValue"] else None,
            )
            for row in csv.DictReader(file)
        ]


def write_best(path: Path, best: Trial, fixed: Mapping[str, str]) -> None:
    """Write all hyperparameters of the best trial, for ``train.py --hyperparameters`` and ``train_local.sh``."""
    path.write_text(json.dumps({**fixed, **best.parameters}, indent=2) + "\n", encoding="utf-8")

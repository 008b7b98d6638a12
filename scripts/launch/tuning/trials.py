"""Trials of a tuning job, local or on AWS: values, CSV table, the best one, and whether more are needed."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from classifier.contract.metrics import Metric
from launch.tuning.request import TuningSpec

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
_MAX_ATTEMPTS = 5  # the platform fails a tuning job whose first 5 trials all fail


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
        history=tuple(summary.get("ObjectiveHistory", ())),
    )


def to_summary(trial: Trial, metric: Metric) -> dict[str, Any]:
    """Convert a local trial to an entry of ``ListTrainingJobsForHyperParameterTuningJob``."""
    objective = None if trial.objective is None or trial.is_running else trial.objective
    final = {"Type": metric.direction, "MetricName": metric.name, "Value": objective}
    fields = {
        "CreationTime": trial.started,
        "TrainingStartTime": trial.started,
        "TrainingEndTime": trial.ended,
        "FailureReason": trial.failure,
        "FinalHyperParameterTuningJobObjectiveMetric": None if objective is None else final,
    }
    return {
        "TrainingJobName": trial.name,
        "TrainingJobStatus": trial.status,
        "TunedHyperParameters": dict(trial.parameters),
        "ObjectiveStatus": "Pending" if trial.is_running else "Failed" if objective is None else "Succeeded",
        "ObjectiveHistory": list(trial.history),
        **{name: value for name, value in fields.items() if value is not None},
    }


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


def reason_to_end(spec: TuningSpec, trials: Sequence[Trial], seconds: float) -> str | None:
    """Return why no more trials are needed, or None if they are.

    Args:
        trials: all trials so far, the running ones included.
        seconds: duration of the present run.
    """
    ended = [trial for trial in trials if not trial.is_running]
    best = best_trial(ended, spec.metric)
    if len(ended) >= spec.num_jobs():
        return f"all {spec.num_jobs()} trials are done"
    if best is None and len(ended) >= _MAX_ATTEMPTS and all(trial.status == "Failed" for trial in ended):
        return f"no trial succeeded in {len(ended)} attempts"
    if best is not None and best.objective is not None:
        if spec.target is not None and not spec.metric.is_better(spec.target, best.objective):
            return f"the target {spec.target:g} is reached"
        num_since = sum(trial is not best and _ended_after(trial, best) for trial in ended)
        if spec.no_improvement is not None and num_since >= spec.no_improvement:
            return f"no improvement in {num_since} trials"
    if spec.max_runtime_s is not None and seconds >= spec.max_runtime_s:
        return f"the time limit of {spec.max_runtime_s} s is reached"
    return None


def _ended_after(trial: Trial, best: Trial) -> bool:
    return trial.ended is not None and best.ended is not None and trial.ended >= best.ended


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


def write_best(path: Path, best: Trial, fixed: Mapping[str, str]) -> None:
    """Write all hyperparameters of the best trial, for ``train.py --hyperparameters`` and ``train_local.sh``."""
    path.write_text(json.dumps({**fixed, **best.parameters}, indent=2) + "\n", encoding="utf-8")

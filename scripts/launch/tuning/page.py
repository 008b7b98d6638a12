"""HTML page of a tuning job: charts drawn by plotly.js and the table of trials. It needs no other file."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from classifier.contract.metrics import Metric
from classifier.reporting.theme import duration, render_page
from launch.tuning.ranges import Choice, Range, canonical
from launch.tuning.table import shorten
from launch.tuning.trials import Trial, best_trial

_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, name: str, metric: Metric, parameters: Sequence[Range], trials: Sequence[Trial]) -> None:
    """Write the page of a tuning job.

    Args:
        path: the HTML file to write.
        name: the job's name, shown as the title.
        metric: the objective.
        parameters: the tuned ranges, in the order of their charts.
        trials: the trials, in the order of their start.
    """
    best = best_trial(trials, metric)
    names = [parameter.name for parameter in parameters]
    page = render_page(
        _TEMPLATE,
        name=name,
        metric=metric.name,
        summary=_summary(trials, metric),
        best=_best(best) if best else None,
        titles=("trial", "status", metric.name, *names, "started", "seconds", ""),
        rows=[_row(trial, names, is_best=trial is best) for trial in trials],
        data=_data(metric, parameters, trials, best),
    )
    path.write_text(page, encoding="utf-8")


def _summary(trials: Sequence[Trial], metric: Metric) -> list[str]:
    parts = [f"{metric.direction} {metric.name}", f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"]
    for status, word in (("Completed", "completed"), ("Stopped", "stopped early"), ("Failed", "failed")):
        num = sum(trial.status == status for trial in trials)
        if num:
            parts.append(f"{num} {word}")
    starts = [trial.started for trial in trials if trial.started]
    ends = [trial.ended for trial in trials if trial.ended]
    if starts and ends:
        parts.append(duration((max(ends) - min(starts)).total_seconds()))
    return parts


def _best(best: Trial) -> dict[str, Any]:
    parameters = [(name, value, shorten(value)) for name, value in best.parameters.items()]
    return {"name": best.name, "objective": best.objective, "parameters": parameters}


def _row(trial: Trial, names: Sequence[str], *, is_best: bool) -> dict[str, Any]:
    objective = "" if trial.objective is None else f"{trial.objective:.6g}"
    return {
        "name": trial.name,
        "status": trial.status,
        "cells": [objective, *(shorten(trial.parameters.get(name, "")) for name in names)],
        "started": _clock(trial.started),
        "seconds": "" if trial.seconds is None else f"{trial.seconds:.0f}",
        "note": trial.failure or ("best" if is_best else ""),
        "is_best": is_best,
    }


def _clock(time: datetime | None) -> str:
    return time.astimezone().strftime("%b %d, %H:%M:%S") if time else ""


def _data(metric: Metric, parameters: Sequence[Range], trials: Sequence[Trial], best: Trial | None) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "maximize": metric.direction == "Maximize",
        "parameters": [_axis(parameter) for parameter in parameters],
        "trials": [_point(number, trial, is_best=trial is best) for number, trial in enumerate(trials, 1)],
    }


def _axis(parameter: Range) -> dict[str, Any]:
    axis: dict[str, Any] = {"name": parameter.name, "title": canonical(parameter.name)}
    if isinstance(parameter, Choice):
        return {**axis, "values": parameter.values}
    return {**axis, "low": parameter.low, "high": parameter.high, "log": parameter.scaling == "Logarithmic"}


def _point(number: int, trial: Trial, *, is_best: bool) -> dict[str, Any]:
    is_finite = trial.objective is not None and math.isfinite(trial.objective)
    return {
        "number": number,
        "name": trial.name,
        "status": trial.status,
        "objective": trial.objective if is_finite else None,
        "parameters": dict(trial.parameters),
        "best": is_best,
    }

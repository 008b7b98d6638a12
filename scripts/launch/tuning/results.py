"""Results of a tuning job in its folder: the table, the best hyperparameters, and an HTML page with charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from classifier.contract.metrics import Metric
from classifier.reporting.theme import duration, render_page
from launch.tuning.ranges import Choice, Range, canonical
from launch.tuning.request import TuningSpec
from launch.tuning.table import shorten
from launch.tuning.trials import Trial, best_trial, write_best, write_csv

BEST = "best_hyperparameters.json"
# Its charts are drawn by plotly.js; the page needs no other file.
_TEMPLATE = Path(__file__).with_name("page.html")


def report_results(folder: Path, spec: TuningSpec, fixed: Mapping[str, str], trials: Sequence[Trial]) -> Trial | None:
    """Write the results, print the best trial and the files, and return the best trial, if one has completed."""
    best, written = write_results(folder, spec, fixed, trials)
    if best is not None:
        parameters = " ".join(f"{name}={value}" for name, value in best.parameters.items())
        print(f"best        {spec.objective}={best.objective:.4f} by {best.name}: {parameters}", flush=True)
    for path in written:
        print(f"wrote       {display_path(path)}", flush=True)
    return best


def write_results(
    folder: Path, spec: TuningSpec, fixed: Mapping[str, str], trials: Sequence[Trial]
) -> tuple[Trial | None, list[Path]]:
    """Write the results.

    Args:
        fixed: the hyperparameters that all trials share.

    Returns:
        The best trial, if one has completed, and the files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = spec.ranges.names
    # The API returns a trial's parameters in an order of its own.
    ordered = [replace(trial, parameters=_in_order(trial.parameters, names)) for trial in trials]
    best = best_trial(ordered, spec.metric)
    write_csv(folder / "trials.csv", ordered, names)
    write_page(folder / "tuning.html", spec.name, spec.metric, spec.ranges.parameters, ordered)
    written = [folder / "trials.csv", folder / "tuning.html"]
    if best:
        write_best(folder / BEST, best, fixed)
        written.append(folder / BEST)
    return best, written


def display_path(path: Path) -> Path:
    """Return a path relative to the working directory if it is below it."""
    current = Path.cwd()
    return path.relative_to(current) if path.is_relative_to(current) else path


def _in_order(parameters: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: parameters[name] for name in names if name in parameters}


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

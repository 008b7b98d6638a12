"""Trials → one HTML page that needs nothing else: the plots, drawn by plotly.js within, and the table."""

import json
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from classifier.contract.metrics import Metric
from launch.tuning.ranges import Choice, Range, canonical
from launch.tuning.table import shorten
from launch.tuning.trials import Trial, best_trial

_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, name: str, metric: Metric, parameters: Sequence[Range], trials: Sequence[Trial]) -> None:
    """``parameters`` are the ranges, in the order of their panels."""
    best = best_trial(trials, metric)
    fields = {
        "NAME": escape(name),
        "SUMMARY": _summary(trials, metric),
        "BEST": _best(best, metric) if best else "<p>No trial has completed.</p>",
        "TABLE": _table(trials, [parameter.name for parameter in parameters], metric, best),
        "DATA": _data(metric, parameters, trials, best),
        "PLOTLY": get_plotlyjs(),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    # In one pass, so that nothing that a field holds is taken for a place.
    parts = page.split("{{")
    text = parts[0] + "".join(fields[place] + rest for place, rest in (part.split("}}", 1) for part in parts[1:]))
    path.write_text(text, encoding="utf-8")


def _summary(trials: Sequence[Trial], metric: Metric) -> str:
    counts = [f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"]
    for status, word in (("Completed", "completed"), ("Stopped", "stopped early"), ("Failed", "failed")):
        num = sum(trial.status == status for trial in trials)
        if num:
            counts.append(f"{num} {word}")
    starts = [trial.started for trial in trials if trial.started]
    ends = [trial.ended for trial in trials if trial.ended]
    if starts and ends:
        counts.append(_duration(max(ends) - min(starts)))
    return escape(" · ".join([f"{metric.direction} {metric.name}", *counts]))


def _duration(span: Any) -> str:
    seconds = round(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min" if seconds >= 3600 else f"{seconds // 60} min"


def _best(best: Trial, metric: Metric) -> str:
    values = "".join(
        f"<div><dt>{escape(name)}</dt><dd title='{escape(value)}'>{escape(shorten(value))}</dd></div>"
        for name, value in best.parameters.items()
    )
    return (
        f"<p class='figure'>{best.objective:.4f}</p><p class='caption'>best {escape(metric.name)}, "
        f"by {escape(best.name)}</p><dl>{values}</dl>"
    )


def _table(trials: Sequence[Trial], names: Sequence[str], metric: Metric, best: Trial | None) -> str:
    titles = ("trial", "status", metric.name, *names, "started", "seconds", "")
    header = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = "".join(_table_row(number, trial, names, best) for number, trial in enumerate(trials, 1))
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _table_row(number: int, trial: Trial, names: Sequence[str], best: Trial | None) -> str:
    numeric = ["" if trial.objective is None else f"{trial.objective:.6g}"]
    numeric += [shorten(trial.parameters.get(name, "")) for name in names]
    cells = [f"<td title='{escape(trial.name)}'>{number}</td>", f"<td class='{trial.status}'>{trial.status}</td>"]
    cells += [f"<td class='number'>{escape(value)}</td>" for value in numeric]
    cells.append(f"<td>{_clock(trial.started)}</td>")
    cells.append(f"<td class='number'>{'' if trial.seconds is None else f'{trial.seconds:.0f}'}</td>")
    cells.append(f"<td class='reason'>{escape(trial.failure or ('best' if trial is best else ''))}</td>")
    return f"<tr{' class=best' if trial is best else ''}>{''.join(cells)}</tr>"


def _clock(time: datetime | None) -> str:
    return time.astimezone().strftime("%b %d, %H:%M:%S") if time else ""


def _data(metric: Metric, parameters: Sequence[Range], trials: Sequence[Trial], best: Trial | None) -> str:
    content = {
        "metric": metric.name,
        "maximize": metric.direction == "Maximize",
        "parameters": [_axis(parameter) for parameter in parameters],
        "trials": [_point(number, trial, is_best=trial is best) for number, trial in enumerate(trials, 1)],
    }
    # A name that holds </script> must not end the script.
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def _axis(parameter: Range) -> dict[str, Any]:
    axis: dict[str, Any] = {"name": parameter.name, "title": canonical(parameter.name)}
    if isinstance(parameter, Choice):
        return {**axis, "values": parameter.values}
    return {**axis, "low": parameter.low, "high": parameter.high, "log": parameter.scaling == "Logarithmic"}


def _point(number: int, trial: Trial, *, is_best: bool) -> dict[str, Any]:
    finite = trial.objective is not None and trial.objective == trial.objective and abs(trial.objective) != float("inf")
    return {
        "number": number,
        "name": trial.name,
        "status": trial.status,
        "objective": trial.objective if finite else None,
        "parameters": dict(trial.parameters),
        "best": is_best,
    }

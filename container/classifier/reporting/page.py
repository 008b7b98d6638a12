"""The HTML report of a training, ``report.html``: one page that needs no other file. Imports no torch.

The page contains no time of its own, so the same files always give the same bytes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from classifier.reporting import sections
from classifier.reporting.charts.figure import Figure
from classifier.reporting.summary import PAGE_FILE, OutputFolder
from classifier.reporting.theme import render_page

_TEMPLATE = Path(__file__).with_name("page.html")
_SECTIONS: Mapping[str, Callable[[OutputFolder], Any]] = {
    "failure": OutputFolder.failure,
    "result": sections.result,
    "notices": sections.notices,
    "curves": sections.curves,
    "confusion": sections.confusion,
    "classes": sections.classes,
    "photos": sections.photos,
    "data": sections.data,
    "debugger": sections.debugger,
    "profiler": sections.profiler,
    "engines": sections.engines,
    "hyperparameters": sections.hyperparameters,
    "reproduction": sections.reproduction,
}


def write_page(path: Path) -> Path:
    """Write the report of a training and return its path.

    Args:
        path: the job's ``output/data``, or the job's folder.

    Raises:
        ConfigError: the folder contains no output of a training.
    """
    folder = OutputFolder.find(path)
    target = folder.path / PAGE_FILE
    unfinished = target.with_suffix(".part")
    unfinished.write_text(render(folder), encoding="utf-8")
    unfinished.replace(target)
    return target


def render(folder: OutputFolder) -> str:
    """Render the report. A section whose files are unreadable is left out and listed on the page."""
    content, problems = {}, []
    for name, build in _SECTIONS.items():
        try:
            content[name] = build(folder)
        except Exception as error:  # the files may be truncated or of another version
            content[name] = None
            problems.append(f"{name}: {type(error).__name__}: {error}")
    texts = {name: Markup(_TEMPLATE.with_name(f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    figures = {figure.name: _to_json(figure) for figure in _figures(content)}
    return render_page(_TEMPLATE, **content, **texts, problems=problems, figures=figures)


def _figures(content: Mapping[str, Any]) -> list[Figure]:
    figures: list[Figure] = []
    for section in content.values():
        if isinstance(section, dict):
            figures += section.get("figures", [])
            figures += [section["figure"]] if "figure" in section else []
    return figures


def _to_json(figure: Figure) -> dict[str, Any]:
    return _round({"traces": list(figure.traces), "layout": figure.layout})


def _round(value: Any) -> Any:
    """Round floats to six digits, which keeps the page small, and replace infinity and NaN, which JSON lacks."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _round(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_round(item) for item in value]
    return value

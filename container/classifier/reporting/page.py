"""The files of ``output/data`` → ``report.html``: one page that needs nothing but itself. Imports no torch.

Same files, same bytes: the page holds no time of its own.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from classifier.reporting import sections
from classifier.reporting.charts.figure import Figure
from classifier.reporting.palette import style, themes
from classifier.reporting.summary import PAGE_FILE, Folder

_HERE = Path(__file__).parent
_SECTIONS: Mapping[str, Callable[[Folder], Any]] = {
    "failure": Folder.failure,
    "result": sections.result,
    "notices": sections.notices,
    "curves": sections.curve,
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
    """Make the page of ``path``, which is ``output/data`` or a job's folder, and return where it lies.

    Raises:
        ConfigError: the folder holds nothing that a training left.
    """
    folder = Folder.find(path)
    target = folder.path / PAGE_FILE
    unfinished = target.with_suffix(".part")
    unfinished.write_text(render(folder), encoding="utf-8")
    unfinished.replace(target)
    return target


def render(folder: Folder) -> str:
    """A section whose files can't be made sense of is left out, and the page says so."""
    content, problems = {}, []
    for name, build in _SECTIONS.items():
        try:
            content[name] = build(folder)
        except Exception as error:  # the files may be cut off, or of another version
            content[name] = None
            problems.append(f"{name}: {type(error).__name__}: {error}")
    figures = {figure.name: _described(figure) for figure in _figures(content)}
    text = {name: Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js")}
    return (
        _environment()
        .get_template("page.html")
        .render(
            **content,
            problems=problems,
            figures=figures,
            themes=themes(),
            css=Markup(style()) + text["page.css"],
            js=text["page.js"],
            plotly=Markup(get_plotlyjs()),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, number=_number, duration=_duration, sentence=sections.sentence)
    return environment


def _figures(content: Mapping[str, Any]) -> list[Figure]:
    found: list[Figure] = []
    for section in content.values():
        if isinstance(section, dict):
            found += section.get("figures", [])
            found += [section["figure"]] if "figure" in section else []
    return found


def _described(figure: Figure) -> dict[str, Any]:
    return _plain({"traces": list(figure.traces), "layout": figure.layout})


def _plain(value: Any) -> Any:
    """As JSON has it: no infinity, and no digits that nobody sees."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{int(seconds // 60)} min {int(seconds % 60):02} s"

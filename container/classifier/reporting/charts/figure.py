"""A figure, and what all of them share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_POINTS = 1_200  # of a line; more can't be told apart on a page

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Traces and a layout as plotly.js takes them; ``label`` says in words what is drawn."""

    name: str
    label: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 300


def plain(text: str) -> str:
    """A stranger's text as plotly.js shows it letter by letter: no markup, and no colour of the theme."""
    for letter, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}.items():
        text = text.replace(letter, entity)
    return text


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many points, each the mean of its neighbours."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def smooth(points: Sequence[Point], span: float) -> list[Point]:
    """An exponential mean over about ``span`` points, unbiased at the start; what is not finite is passed over."""
    decay, mean, weight, result = 1 - 1 / max(1.0, span), 0.0, 0.0, []
    for x, value in points:
        if math.isfinite(value):
            mean, weight = decay * mean + (1 - decay) * value, decay * weight + 1 - decay
            result.append((x, mean / weight) if weight else (x, value))
    return result


def line(points: Sequence[Point], name: str, colour: str, **options: Any) -> dict[str, Any]:
    """A trace of ``(x, y)``; options of its line come as ``width`` and ``dash``."""
    style = {"color": colour, "width": options.pop("width", 2), "dash": options.pop("dash", "solid")}
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": style, **options}


def upright(x: float, text: str) -> dict[str, Any]:
    """A dotted line over the whole height, and its name: a part of a layout."""
    style = {"color": "@quiet", "width": 1, "dash": "dot"}
    return {
        "shapes": [{"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": style}],
        "annotations": [
            {"x": x, "y": 1, "yref": "paper", "text": text, "showarrow": False, "xanchor": "right", "xshift": -4}
            | {"yanchor": "top", "font": {"size": 11, "color": "@quiet"}}
        ],
    }


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **options}


PERCENT = {"tickformat": ".0%"}

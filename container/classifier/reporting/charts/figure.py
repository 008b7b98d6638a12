"""A figure, and what all of them share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
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


def smooth(points: Sequence[Point], reach: int) -> list[Point]:
    """Each value's mean with its neighbours, ``reach`` on either side; what is not finite is passed over."""
    points = [point for point in points if math.isfinite(point[1])]
    sums = [0.0, *accumulate(value for _, value in points)]
    windows = [(max(0, place - reach), min(len(points), place + reach + 1)) for place in range(len(points))]
    return [
        (x, (sums[end] - sums[start]) / (end - start)) for (x, _), (start, end) in zip(points, windows, strict=True)
    ]


def line(points: Sequence[Point], name: str, colour: str, **options: Any) -> dict[str, Any]:
    """A trace of ``(x, y)``; options of its line come as ``width`` and ``dash``."""
    style = {"color": colour, "width": options.pop("width", 2), "dash": options.pop("dash", "solid")}
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": style, **options}


def upright(x: float, text: str, *, at: float) -> dict[str, Any]:
    """A dotted line over the whole height, and its name at the top (1) or the bottom (0): a part of a layout."""
    style = {"color": "@quiet", "width": 1, "dash": "dot"}
    return {
        "shapes": [{"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": style}],
        "annotations": [
            {"x": x, "y": at, "yref": "paper", "text": text, "showarrow": False, "xanchor": "right", "xshift": -4}
            | {"yanchor": "top" if at else "bottom", "font": {"size": 11, "color": "@quiet"}}
        ],
    }


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **options}


PERCENT = {"tickformat": ".0%"}

"""The figure type, traces and axes shared by all charts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

# Points of a line; more are indistinguishable on a page.
MAX_POINTS = 1_200

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Traces and layout for plotly.js.

    Attributes:
        label: description for screen readers.
        height: in pixels.
    """

    name: str
    label: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 300


def escape(text: str) -> str:
    """Escape untrusted text, which plotly.js would parse as markup and the page as a color (``@``)."""
    for letter, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}.items():
        text = text.replace(letter, entity)
    return text


def thin(points: Sequence[Point], num_points: int = MAX_POINTS) -> list[Point]:
    """Reduce a line to at most ``num_points`` points, each the mean of a group of neighbors."""
    if len(points) <= num_points:
        return list(points)
    size = math.ceil(len(points) / num_points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def smooth(points: Sequence[Point], reach: int) -> list[Point]:
    """Return the moving average over ``reach`` points on either side; non-finite values are left out."""
    points = [point for point in points if math.isfinite(point[1])]
    sums = [0.0, *accumulate(value for _, value in points)]
    windows = [(max(0, place - reach), min(len(points), place + reach + 1)) for place in range(len(points))]
    return [
        (x, (sums[end] - sums[start]) / (end - start)) for (x, _), (start, end) in zip(points, windows, strict=True)
    ]


def line(points: Sequence[Point], name: str, color: str, **options: Any) -> dict[str, Any]:
    """Build a line trace. The options ``width`` and ``dash`` style the line; others belong to the trace."""
    style = {"color": color, "width": options.pop("width", 2), "dash": options.pop("dash", "solid")}
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": style, **options}


def vertical_line(x: float, text: str, *, at: float) -> dict[str, Any]:
    """Build the part of a layout that draws a dotted line, labeled at the top (``at=1``) or the bottom (``at=0``)."""
    style = {"color": "@quiet", "width": 1, "dash": "dot"}
    return {
        "shapes": [{"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": style}],
        "annotations": [
            {"x": x, "y": at, "yref": "paper", "text": text, "showarrow": False, "xanchor": "right", "xshift": -4}
            | {"yanchor": "top" if at else "bottom", "font": {"size": 11, "color": "@quiet"}}
        ],
    }


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    """Build an axis of a layout."""
    return {"title": {"text": title}, **options}


PERCENT = {"tickformat": ".0%"}

"""Charts of the debugger's tensors: losses, and gradient norms and update ratios by layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from classifier.reporting.charts.figure import Figure, Point, axis, escape, line, thin

# More layers than lines are drawn as a heat map, with at most so many steps.
_MAX_LINES = 6
_COLORS = ("@accent", "@second", "@third", "@fourth", "@fifth", "@quiet")
_MAX_COLUMNS = 200

Series = Mapping[str, Sequence[Sequence[float]]]


def debugger_figures(series: Mapping[str, Series]) -> list[Figure]:
    """Draw ``debugger_series.json``: for each quantity, (step, value) pairs by name."""
    figures = []
    if any(series.get("loss", {}).values()):
        figures.append(_losses(series["loss"]))
    for key, title in (("gradient_norm", "Gradient norm"), ("update_ratio", "Update ÷ weight")):
        layers = {name: points for name, points in series.get(key, {}).items() if points}
        if layers:
            figures.append(_by_layer(key, title, layers))
    return figures


def _losses(series: Series) -> Figure:
    colors = {"train": "@quiet", "validation": "@accent"}
    traces = [
        line(thin(_points(points)), escape(name), colors.get(name, "@second"), mode="lines+markers", marker={"size": 4})
        for name, points in series.items()
        if points
    ]
    layout = {"xaxis": axis("step"), "yaxis": axis(rangemode="tozero")}
    return Figure(name="saved-loss", label="Losses saved by the debugger over the steps.", traces=traces, layout=layout)


def _by_layer(key: str, title: str, layers: Series) -> Figure:
    label = f"{title} of {len(layers)} layers over the steps."
    if len(layers) <= _MAX_LINES:
        traces = [
            line(thin(_points(points)), escape(name), color, mode="lines+markers", marker={"size": 4})
            for (name, points), color in zip(layers.items(), _COLORS, strict=False)
        ]
        layout = {"xaxis": axis("step"), "yaxis": axis(title, type="log", exponentformat="power")}
        return Figure(name=key, label=label, traces=traces, layout=layout)
    return Figure(
        name=key,
        label=label,
        traces=[_heat(title, layers)],
        layout={
            "xaxis": axis("step", showgrid=False, type="category", nticks=10, tickangle=0),
            "yaxis": axis(autorange="reversed", showgrid=False, showticklabels=len(layers) <= 40, tickfont={"size": 9}),
            "hovermode": "closest",
        },
        height=int(min(760, max(260, 120 + 13 * len(layers)))),
    )


def _heat(title: str, layers: Series) -> dict[str, Any]:
    """Draw one row per layer from the input down and one column per step, colored by the power of ten."""
    steps = sorted({step for points in layers.values() for step, _ in points})
    steps = steps[:: -(-len(steps) // _MAX_COLUMNS)]
    values = {name: dict(_points(points)) for name, points in layers.items()}
    logs = [[_log10(values[name].get(step)) for step in steps] for name in layers]
    return {
        "type": "heatmap",
        "x": [f"{step:g}" for step in steps],
        "y": [escape(name) for name in layers],
        "z": logs,
        "colorscale": [[0, "@cold"], [0.5, "@surface"], [1, "@hot"]],
        "customdata": [[None if log is None else f"{10**log:.2e}" for log in row] for row in logs],
        "hovertemplate": f"%{{y}}<br>step %{{x}}: {title.lower()} %{{customdata}}<extra></extra>",
        "colorbar": {"title": {"text": "10^"}, "thickness": 10, "outlinewidth": 0},
    }


def _points(pairs: Sequence[Sequence[float]]) -> list[Point]:
    return [(step, value) for step, value in pairs if value is not None]


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value is not None and math.isfinite(value) and value > 0 else None

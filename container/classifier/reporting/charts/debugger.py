"""What the debugger saved: losses, and by layer the gradients' norms and how far each step moves the weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from classifier.reporting.charts.figure import Figure, Point, axis, line, plain, thin

_MOST_LINES = 6
_COLOURS = ("@accent", "@second", "@third", "@fourth", "@fifth", "@quiet")
_MOST_COLUMNS = 200

Series = Mapping[str, Sequence[Sequence[float]]]


def debugger_figures(series: Mapping[str, Series]) -> list[Figure]:
    figures = []
    if any(series.get("loss", {}).values()):
        figures.append(_losses(series["loss"]))
    for key, title in (("gradient_norm", "Gradient norm"), ("update_ratio", "Update ÷ weight")):
        layers = {name: points for name, points in series.get(key, {}).items() if points}
        if layers:
            figures.append(_by_layer(key, title, layers))
    return figures


def _losses(series: Series) -> Figure:
    colours = {"train": "@quiet", "validation": "@accent"}
    traces = [
        line(thin(_points(points)), plain(name), colours.get(name, "@second"), mode="lines+markers", marker={"size": 4})
        for name, points in series.items()
        if points
    ]
    layout = {"xaxis": axis("step"), "yaxis": axis(rangemode="tozero")}
    return Figure(name="saved-loss", label="Losses that the debugger saved, by step.", traces=traces, layout=layout)


def _by_layer(key: str, title: str, layers: Series) -> Figure:
    label = f"{title} of {len(layers)} layers over the steps."
    if len(layers) <= _MOST_LINES:
        traces = [
            line(thin(_points(points)), plain(name), colour, mode="lines+markers", marker={"size": 4})
            for (name, points), colour in zip(layers.items(), _COLOURS, strict=False)
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
    """A row a layer from the input down, a column a step, coloured by the power of ten."""
    steps = sorted({step for points in layers.values() for step, _ in points})
    steps = steps[:: -(-len(steps) // _MOST_COLUMNS)]
    values = {name: dict(_points(points)) for name, points in layers.items()}
    logs = [[_log10(values[name].get(step)) for step in steps] for name in layers]
    return {
        "type": "heatmap",
        "x": [f"{step:g}" for step in steps],
        "y": [plain(name) for name in layers],
        "z": logs,
        "colorscale": [[0, "@cold"], [0.5, "@manifest"], [1, "@hot"]],
        "customdata": [[None if log is None else f"{10**log:.2e}" for log in row] for row in logs],
        "hovertemplate": f"%{{y}}<br>step %{{x}}: {title.lower()} %{{customdata}}<extra></extra>",
        "colorbar": {"title": {"text": "10^"}, "thickness": 10, "outlinewidth": 0},
    }


def _points(pairs: Sequence[Sequence[float]]) -> list[Point]:
    return [(step, value) for step, value in pairs if value is not None]


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value is not None and math.isfinite(value) and value > 0 else None

"""Charts of loss, accuracy and learning rate over the steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from classifier.reporting.charts.figure import PERCENT, Figure, Point, axis, line, smooth, thin, vertical_line

# Ratio of the largest to the first loss above which the axis is logarithmic, as a linear one would hide most steps.
_EXPLODED = 100
# Up to this many steps, each is drawn as a point without smoothing.
_MAX_UNSMOOTHED = 60

Rows = Sequence[Mapping[str, float]]


def curve_figures(steps: Rows, history: Rows, best_epoch: int | None) -> list[Figure]:
    """Draw the rows of ``steps.csv`` and ``history.csv``; without steps, the x axis is the epoch."""
    ends = {row["epoch"]: row["step"] for row in steps}  # the last step of each epoch
    x_title = "step" if steps else "epoch"
    place = {row["epoch"]: ends.get(row["epoch"], row["epoch"]) for row in history}

    def mark(at: float) -> dict[str, Any]:
        return vertical_line(place[best_epoch], f"best, epoch {best_epoch}", at=at) if best_epoch in place else {}

    if not steps:
        steps = [{"step": row["epoch"], "loss": row["train:loss"], "lr": row["lr"]} for row in history]

    def per_epoch(metric: str) -> list[Point]:
        return [(place[row["epoch"]], row[metric]) for row in history if metric in row]

    def per_step(column: str) -> list[Point]:
        return [(row["step"], row[column]) for row in steps if column in row]

    loss = [*_training(per_step("loss")), _validation(per_epoch("validation:loss"), "validation", "@accent")]
    accuracy = [
        *_training(per_step("accuracy")),
        _validation(per_epoch("validation:top5"), "top 5", "@second", dash="dot"),
        _validation(per_epoch("validation:accuracy"), "validation", "@accent"),
    ]
    rate = [line(thin(per_step("lr")), "learning rate", "@accent")]
    return [
        Figure(
            name="loss",
            label=_label("Loss", history, "validation:loss", ".3f"),
            traces=loss,
            layout={"xaxis": axis(x_title), "yaxis": _loss_axis(per_step("loss")), **mark(at=1)},
            height=330,
        ),
        Figure(
            name="accuracy",
            label=_label("Accuracy", history, "validation:accuracy", ".1%"),
            traces=accuracy,
            layout={"xaxis": axis(x_title), "yaxis": axis(**PERCENT, range=[0, 1.02]), **mark(at=0)},
            height=330,
        ),
        Figure(
            name="lr",
            label=f"Learning rate over the {x_title}s.",
            traces=rate,
            layout={"xaxis": axis(x_title), "yaxis": axis(rangemode="tozero", exponentformat="power")},
            height=190,
        ),
    ]


def _loss_axis(points: Sequence[Point]) -> dict[str, Any]:
    losses = [loss for _, loss in points if math.isfinite(loss)]
    if losses and max(losses) > _EXPLODED * losses[0] > 0:
        return axis(type="log", exponentformat="power")
    return axis(rangemode="tozero")


def _training(points: Sequence[Point]) -> list[dict]:
    """Draw each step, and if there are many, their moving average over them."""
    points = thin(points)
    if len(points) <= _MAX_UNSMOOTHED:
        return [line(points, "training", "@quiet", mode="lines+markers", marker={"size": 4})]
    faint = line(points, "each step", "@faint", width=1, hoverinfo="skip")
    return [faint, line(smooth(points, len(points) // 60), "training", "@quiet")]


def _validation(points: Sequence[Point], name: str, color: str, dash: str = "solid") -> dict:
    markers = {"mode": "lines+markers", "marker": {"size": 6 if len(points) <= 40 else 3}}
    return line(points, name, color, dash=dash, **markers)


def _label(quantity: str, history: Rows, metric: str, form: str) -> str:
    values = [row[metric] for row in history if metric in row]
    if not values:
        return f"{quantity} over the training steps."
    change = f"from {values[0]:{form}} after the first epoch to {values[-1]:{form}} after the last"
    return f"{quantity} over the training steps; on validation {change}."

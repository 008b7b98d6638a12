"""Charts of the results: learning curves, and the confusion matrix with mistakes in another color."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classifier.reporting.charts.figure import PERCENT, Figure, Point, axis, escape, line, smooth, thin, vertical_line

# Ratio of the largest to the first loss above which the axis is logarithmic, as a linear one would hide most steps.
_EXPLODED = 100
# Up to this many steps, each is drawn as a point without smoothing.
_MAX_UNSMOOTHED = 60
# Class counts up to which the cells show counts and the axes show names, and the length of those names.
_MAX_WITH_COUNTS, _MAX_WITH_NAMES, _MAX_NAME_LENGTH = 25, 60, 22

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


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, colored by the share of the true class.

    Args:
        counts: photos by true and predicted class, integers (C, C).
        names: the display names of the C classes.
    """
    num_classes = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(num_classes, dtype=bool)
    ticks: dict[str, Any] = {"showticklabels": False, "ticks": ""}
    if num_classes <= _MAX_WITH_NAMES:
        ticks = {
            "tickvals": list(range(num_classes)),
            "ticktext": [escape(_shorten(name)) for name in names],
            "ticks": "",
        }
    if num_classes > _MAX_WITH_COUNTS:
        ticks["tickfont"] = {"size": 9}
    shared = {"showgrid": False, "zeroline": False, "constrain": "domain", **ticks}
    return Figure(
        name="confusion",
        label=f"Confusion matrix of {num_classes} classes: {_accuracy(counts):.1%} of the photos are on the diagonal.",
        traces=[
            _cells(counts, shares, diagonal, names, "@right"),
            _cells(counts, shares, ~diagonal & (counts > 0), names, "@wrong"),
        ],
        layout={
            "xaxis": axis("predicted", tickangle=-45, range=[-0.5, num_classes - 0.5], **shared),
            "yaxis": axis("true", range=[num_classes - 0.5, -0.5], **shared),
            "hovermode": "closest",
            "showlegend": False,
        },
        height=int(min(800, max(380, 150 + 38 * num_classes))),
    )


def _cells(
    counts: np.ndarray, shares: np.ndarray, shown: np.ndarray, names: Sequence[str], color: str
) -> dict[str, Any]:
    """Build a trace of the cells in the mask ``shown`` only, as a full matrix of 1,000 classes has a million cells."""
    rows, columns = np.nonzero(shown)
    # Rare mistakes must remain visible: 14 % of a class gives the full color.
    values = shares[rows, columns] if color == "@right" else np.minimum(1, 0.15 + 6 * shares[rows, columns])
    cells = [
        [int(row), int(column), round(float(value), 3), int(counts[row, column]), round(float(share), 4)]
        for row, column, value, share in zip(rows, columns, values, shares[rows, columns], strict=True)
    ]
    return {
        "type": "heatmap",
        "cells": cells,  # expanded by page.js into z, text and customdata
        "names": [escape(name) for name in names],
        "colorscale": [[0, "@surface"], [1, color]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1 if len(names) <= _MAX_WITH_NAMES else 0,
        "ygap": 1 if len(names) <= _MAX_WITH_NAMES else 0,
        "texttemplate": "%{text}" if len(names) <= _MAX_WITH_COUNTS else "",
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def most_confused(counts: np.ndarray, names: Sequence[str], num_pairs: int = 8) -> list[dict[str, Any]]:
    """Return the pairs of true and predicted class with the most photos, from counts (C, C), largest first."""
    wrong = counts * ~np.eye(len(names), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:num_pairs]
    pairs = [divmod(int(index), len(names)) for index in order]
    return [
        {
            "true": names[true],
            "predicted": names[predicted],
            "count": int(wrong[true, predicted]),
            "share": float(wrong[true, predicted] / max(1, counts[true].sum())),
        }
        for true, predicted in pairs
        if wrong[true, predicted]
    ]


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"


def _accuracy(counts: np.ndarray) -> float:
    return float(counts.trace() / max(1, counts.sum()))

"""Chart of the confusion matrix, with correct predictions and mistakes in different colors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from classifier.reporting.charts.figure import Figure, axis, escape

# Class counts up to which the cells show counts and the axes show names, and the length of those names.
_MAX_WITH_COUNTS, _MAX_WITH_NAMES, _MAX_NAME_LENGTH = 25, 60, 22


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

"""The confusion matrix as a heat map: hits in one colour, mistakes in another, each by its share of the row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from classifier.reporting.charts.figure import Figure, axis, plain

_MOST_WITH_COUNTS, _MOST_WITH_NAMES, _MOST_CHARACTERS = 25, 60, 22


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts (true class, predicted class)."""
    num_classes = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(num_classes, dtype=bool)
    ticks: dict[str, Any] = {"showticklabels": False, "ticks": ""}
    if num_classes <= _MOST_WITH_NAMES:
        ticks = {
            "tickvals": list(range(num_classes)),
            "ticktext": [plain(_shorten(name)) for name in names],
            "ticks": "",
        }
    if num_classes > 25:
        ticks["tickfont"] = {"size": 9}
    shared = {"showgrid": False, "zeroline": False, "constrain": "domain", **ticks}
    return Figure(
        name="confusion",
        label=f"Confusion matrix of {num_classes} classes: {_share_right(counts):.1%} of the photos on the diagonal.",
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
    counts: np.ndarray, shares: np.ndarray, shown: np.ndarray, names: Sequence[str], colour: str
) -> dict[str, Any]:
    """Only the cells that are ``shown``, so that a thousand classes make no page of a million numbers."""
    rows, columns = np.nonzero(shown)
    # A mistake is seen though it is rare: a tenth of a class is full colour.
    values = shares[rows, columns] if colour == "@right" else np.minimum(1, 0.15 + 6 * shares[rows, columns])
    cells = [
        [int(row), int(column), round(float(value), 3), int(counts[row, column]), round(float(share), 4)]
        for row, column, value, share in zip(rows, columns, values, shares[rows, columns], strict=True)
    ]
    return {
        "type": "heatmap",
        "cells": cells,  # which the page lays out as z, text and customdata
        "names": [plain(name) for name in names],
        "colorscale": [[0, "@manifest"], [1, colour]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1 if len(names) <= _MOST_WITH_NAMES else 0,
        "ygap": 1 if len(names) <= _MOST_WITH_NAMES else 0,
        "texttemplate": "%{text}" if len(names) <= _MOST_WITH_COUNTS else "",
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def most_confused(counts: np.ndarray, names: Sequence[str], most: int = 8) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most often, by their number of photos."""
    wrong = counts * ~np.eye(len(names), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(names)) for place in order]
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
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"


def _share_right(counts: np.ndarray) -> float:
    return float(counts.trace() / max(1, counts.sum()))

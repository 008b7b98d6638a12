"""Curves and the confusion matrix as PNG."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

_COLOURS = ("#8a8f98", "#0b6bcb")  # the figure to watch is the one in colour
_MAX_CLASSES_WITH_NUMBERS, _MAX_CLASSES_WITH_NAMES = 20, 60
_MAX_NAME = 28  # characters


def plot_curves(path: Path, history: Sequence[Mapping[str, float]], best_epoch: int | None) -> None:
    """Loss and accuracy over the epochs, side by side; a dotted line marks the best epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    _draw(losses, epochs, history, {"train:loss": "train", "validation:loss": "validation"})
    _draw(accuracies, epochs, history, {"validation:top5": "top 5", "validation:accuracy": "top 1"})
    losses.set(title="Loss", xlabel="epoch")
    losses.set_ylim(0, 1.05 * losses.get_ylim()[1])
    accuracies.set(title="Validation accuracy", xlabel="epoch")
    accuracies.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for axes in (losses, accuracies):
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        _tidy(axes, best_epoch)
    _save(figure, path)


def _draw(
    axes: Axes, epochs: Sequence[float], history: Sequence[Mapping[str, float]], labels: Mapping[str, str]
) -> None:
    for (metric, label), colour in zip(labels.items(), _COLOURS, strict=True):
        axes.plot(epochs, [row[metric] for row in history], label=label, color=colour, linewidth=2, marker="o", ms=4)


def _tidy(axes: Axes, best_epoch: int | None) -> None:
    if best_epoch is not None:
        axes.axvline(best_epoch, color="#444", linestyle=":", linewidth=1, label=f"best (epoch {best_epoch})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def plot_confusion(path: Path, confusion: np.ndarray, names: Sequence[str], title: str) -> None:
    """Counts (true class, predicted class), coloured by their share of the true class."""
    num_classes = len(names)
    shown = [_shorten(name) for name in names]
    side = 14.0
    if num_classes <= _MAX_CLASSES_WITH_NAMES:
        side = max(4.5, min(16.0, 2.2 + 0.09 * max(map(len, shown)) + 0.45 * num_classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(
        picture, ax=axes, shrink=0.75, format=PercentFormatter(xmax=1, decimals=0), label="of the true class"
    )
    axes.set(title=title, xlabel="predicted", ylabel="true")
    if num_classes <= _MAX_CLASSES_WITH_NAMES:
        axes.set_xticks(range(num_classes), shown, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(num_classes), shown, parse_math=False)
    if num_classes <= _MAX_CLASSES_WITH_NUMBERS:
        _write_counts(axes, confusion, shares)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _write_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    for true, predicted in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[true, predicted] > 0.5 else "#1c2733"
        axes.text(predicted, true, f"{confusion[true, predicted]}", ha="center", va="center", color=colour, fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks shows as boxes
        figure.savefig(path, dpi=144)

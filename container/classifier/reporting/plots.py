"""Learning curves and the confusion matrix as PNG images."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from classifier.reporting.theme import colors

_COLOR = colors("light")
# The second curve of each plot is the more important one.
_CURVES = (_COLOR["quiet"], _COLOR["accent"])
_SHARES = LinearSegmentedColormap.from_list("shares", (_COLOR["surface"], _COLOR["right"]))
_MAX_CLASSES_WITH_NUMBERS, _MAX_CLASSES_WITH_NAMES = 20, 60
_MAX_NAME_LENGTH = 28
_DPI = 144


def plot_curves(path: Path, history: Sequence[Mapping[str, float]], best_epoch: int | None) -> None:
    """Plot loss and accuracy over the epochs, with a dotted line at the best epoch.

    Args:
        path: the PNG file to write.
        history: one row per epoch, with the epoch and the metrics by name.
        best_epoch: number of the best epoch, or None.
    """
    figure = Figure(figsize=(10, 4), dpi=_DPI)
    # Margins that fit any tick label; a layout engine would take longer than everything else in this plot.
    margins = {"left": 0.07, "right": 0.985, "bottom": 0.13, "top": 0.91, "wspace": 0.17}
    losses, accuracies = figure.subplots(1, 2, gridspec_kw=margins)
    epochs = [row["epoch"] for row in history]
    _draw(losses, epochs, history, {"train:loss": "train", "validation:loss": "validation"})
    _draw(accuracies, epochs, history, {"validation:top5": "top 5", "validation:accuracy": "top 1"})
    losses.set(title="Loss", xlabel="epoch")
    losses.set_ylim(0, 1.05 * losses.get_ylim()[1])
    accuracies.set(title="Validation accuracy", xlabel="epoch")
    accuracies.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for axes in (losses, accuracies):
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        _format_axes(axes, best_epoch)
    _save(figure, path)


def _draw(
    axes: Axes, epochs: Sequence[float], history: Sequence[Mapping[str, float]], labels: Mapping[str, str]
) -> None:
    for (metric, label), color in zip(labels.items(), _CURVES, strict=True):
        axes.plot(epochs, [row[metric] for row in history], label=label, color=color, linewidth=2, marker="o", ms=4)


def _format_axes(axes: Axes, best_epoch: int | None) -> None:
    if best_epoch is not None:
        axes.axvline(best_epoch, color=_COLOR["ink"], linestyle=":", linewidth=1, label=f"best (epoch {best_epoch})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def plot_confusion(path: Path, confusion: np.ndarray, names: Sequence[str], title: str) -> None:
    """Plot a confusion matrix, colored by the share of the true class.

    Args:
        path: the PNG file to write.
        confusion: counts (true class, predicted class), integers (C, C).
        names: the display names of the C classes.
        title: the title of the plot.
    """
    num_classes = len(names)
    shown = [_shorten(name) for name in names]
    side = 14.0
    if num_classes <= _MAX_CLASSES_WITH_NAMES:
        side = max(4.5, min(16.0, 2.2 + 0.09 * max(map(len, shown)) + 0.45 * num_classes))
    figure = Figure(figsize=(side + 0.8, side), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=_SHARES, vmin=0, vmax=1)
    figure.colorbar(
        image, ax=axes, shrink=0.75, format=PercentFormatter(xmax=1, decimals=0), label="share of the true class"
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
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"


def _write_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    for true, predicted in zip(*np.nonzero(confusion), strict=True):
        color = _COLOR["surface" if shares[true, predicted] > 0.5 else "ink"]
        axes.text(predicted, true, f"{confusion[true, predicted]}", ha="center", va="center", color=color, fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # characters missing from the font are drawn as boxes
        canvas.draw()  # once, where savefig() draws twice
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(path, dpi=(_DPI, _DPI))

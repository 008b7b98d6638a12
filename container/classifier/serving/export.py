"""A trained artifact → the graph that a CPU serves, chosen by measurement; called at the end of `train`.

The graph's files hold no time, no path and no version: the same weights give the same bytes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from classifier.serving.engines import (
    GRAPH_FILE,
    EngineChoice,
    Precision,
    compile_graph,
    cpu_has_bf16,
)
from classifier.vision import artifact

MAX_ACCURACY_LOSS = 0.002
MIN_AGREEMENT = 0.99
TIMED_S = 0.4
MAX_PHOTOS = 512
BF16: Precision = "bf16"


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One engine, measured on real photos.

    ``accuracy_change`` is against torch in fp32, in points of 0–1; ``agreement`` is the share of photos that both label
    alike.
    """

    engine: str
    images_per_s: float
    accuracy: float
    accuracy_change: float
    agreement: float
    chosen: bool = False


@dataclass(frozen=True)
class EngineReport:
    """What optimising bought: the first row is torch in fp32, as before; one of the others is chosen."""

    rows: tuple[EngineRow, ...]

    @property
    def chosen(self) -> EngineRow:
        return next(row for row in self.rows if row.chosen)

    @property
    def speedup(self) -> float:
        return self.chosen.images_per_s / self.rows[0].images_per_s

    def lines(self) -> list[str]:
        """A table, a line a row."""
        head = f"{'engine':<16} {'images/s':>9} {'accuracy':>9} {'change':>8} {'agreement':>10}"
        return [head, *(_line(row) for row in self.rows)]


def _line(row: EngineRow) -> str:
    mark = "  ← served on a CPU" if row.chosen else ""
    return (
        f"{row.engine:<16} {row.images_per_s:>9.1f} {row.accuracy:>9.2%} {row.accuracy_change:>+8.2%} "
        f"{row.agreement:>10.2%}{mark}"
    )


class _Served(nn.Module):
    """Pixels as the decoder leaves them, (N, S, S, 3), → logits: the permutation becomes part of the graph."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(pixels.permute(0, 3, 1, 2))


def export(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> EngineReport:
    """Convert an artifact for serving on a CPU, choose its precision, and write both beside the weights.

    Args:
        folder: the artifact, as ``artifact.save`` left it.
        pixels: validation photos as ``Preprocessing.pixels_of`` gives them, uint8 (N, S, S, 3), N ≥ 1.
        labels: their classes' indices, integers (N,).
    """
    pixels, labels = pixels[:MAX_PHOTOS], labels[:MAX_PHOTOS]
    classifier, _ = artifact.load(folder)
    model = _convert(classifier, pixels.shape[1])
    reference = _measure("torch fp32", _torch_infer(classifier), pixels, labels)
    candidates: list[tuple[Precision, Any]] = [("f32", model)]
    if cpu_has_bf16():
        candidates.append(("bf16", model))
    measured = [(precision, graph, _measure_graph(graph, precision, pixels, labels)) for precision, graph in candidates]
    rows = [_row(one, reference, labels) for _, _, one in measured]
    best = _best(rows)
    precision, graph, _ = measured[best]
    save_graph(graph, folder)
    # Where bf16 could not be tried, it is still right for the CPU that has it: only a measured loss forbids it.
    is_forbidden = precision == "f32" and cpu_has_bf16() and not _is_safe(rows[1])
    EngineChoice(precision=precision if precision != "f32" or is_forbidden else BF16).write(folder)
    return EngineReport((_row(reference, reference, labels), *(_mark(row, rows[best]) for row in rows)))


def graph_of(folder: Path) -> openvino.Model:
    """An artifact's weights as a graph, not quantised.

    Raises:
        ArtifactError: the folder holds no artifact, or one whose parts do not fit each other.
    """
    classifier, card = artifact.load(folder)
    return _convert(classifier, card.preprocessing.crop)


def save_graph(model: openvino.Model, folder: Path) -> None:
    """Write a graph. Full precision: halved weights would move the logits on CPUs that compute in fp32."""
    openvino.save_model(model, folder / GRAPH_FILE, compress_to_fp16=False)


def _convert(classifier: nn.Module, side: int) -> openvino.Model:
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, side, side, 3])
    with torch.inference_mode():
        model = openvino.convert_model(
            _Served(classifier).eval(), example_input=example, input=[("pixels", shape, openvino.Type.u8)]
        )
    # The converter's version and arguments; the graph works without.
    for key in list(model.get_rt_info()):
        del model.get_rt_info()[key]
    return model


@dataclass(frozen=True)
class _Measured:
    name: str
    predicted: np.ndarray
    images_per_s: float


def _measure_graph(model: openvino.Model, precision: Precision, pixels: np.ndarray, labels: np.ndarray) -> _Measured:
    engine = compile_graph(model, precision, num_lanes=1)
    return _measure(engine.name, lambda batch: engine.infer(0, batch), pixels, labels)


def _torch_infer(classifier: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def infer(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return classifier(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy()

    return infer


def _measure(name: str, infer: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, labels: np.ndarray) -> _Measured:
    """Predict all photos; then time single ones, as a lone caller sees them."""
    del labels
    predicted = np.concatenate([infer(pixels[start : start + 8]).argmax(1) for start in range(0, len(pixels), 8)])
    infer(pixels[:1])
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < TIMED_S:
        infer(pixels[count % len(pixels)][None])
        count += 1
    return _Measured(name, predicted, count / elapsed)


def _row(measured: _Measured, reference: _Measured, labels: np.ndarray) -> EngineRow:
    accuracy = float((measured.predicted == labels).mean())
    return EngineRow(
        engine=measured.name,
        images_per_s=measured.images_per_s,
        accuracy=accuracy,
        accuracy_change=accuracy - float((reference.predicted == labels).mean()),
        agreement=float((measured.predicted == reference.predicted).mean()),
    )


def _is_safe(row: EngineRow) -> bool:
    return row.accuracy_change >= -MAX_ACCURACY_LOSS and row.agreement >= MIN_AGREEMENT


def _best(rows: Sequence[EngineRow]) -> int:
    """The fastest of those that are safe; fp32, the first, always is."""
    safe = [index for index, row in enumerate(rows) if index == 0 or _is_safe(row)]
    return max(safe, key=lambda index: rows[index].images_per_s)


def _mark(row: EngineRow, best: EngineRow) -> EngineRow:
    return replace(row, chosen=row is best)

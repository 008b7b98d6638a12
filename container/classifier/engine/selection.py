"""The accuracy gate for a CPU's engines: which precisions are safe for a model, measured on photos.

Called at the end of `train`. The files that it writes contain no time and no path: equal weights and photos give equal
bytes.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import nn

from classifier.engine.base import EngineChoice, EnginePrecision
from classifier.engine.convert import convert_classifier, write_graphs
from classifier.engine.openvino import compile_graph
from classifier.engine.quantization import quantize
from classifier.host import cpu_has_bf16, cpu_has_int8
from classifier.vision import artifact

# Photos to measure accuracy on, and photos that suffice to check that the fp32 conversion changed nothing.
MAX_PHOTOS, FEW_PHOTOS = 256, 48
CALIBRATION_PHOTOS = 64
# On fewer photos int8 can't be shown to be safe.
MIN_PHOTOS_INT8 = 100
MAX_ACCURACY_LOSS = 0.003
# One photo in 250 with another label: on a test set of some hundred photos the accuracy stays within 0.3 points.
MAX_EXPECTED_FLIPS = 0.004
TIMED_S = 0.3

Infer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """Measurements of one engine on ``num_photos`` real photos.

    ``accuracy_change`` is the difference to torch in fp32 on the same photos, a fraction; ``agreement`` is the fraction
    of photos that both label alike; ``expected_flips`` is the fraction expected to change its label given the engine's
    error and the photos' margins, which says more than counting does on few photos; ``images_per_s`` is for one photo
    at a time.
    """

    engine: str
    images_per_s: float
    num_photos: int
    accuracy: float
    accuracy_change: float
    agreement: float
    expected_flips: float
    chosen: bool = False

    @property
    def is_safe(self) -> bool:
        """Whether accuracy and labels stay within the gate's thresholds."""
        return self.accuracy_change >= -MAX_ACCURACY_LOSS and self.expected_flips <= MAX_EXPECTED_FLIPS


@dataclass(frozen=True)
class EngineReport:
    """Measurements of all engines: torch in fp32 first, as the reference; one of the others is chosen for serving."""

    rows: tuple[EngineRow, ...]

    @property
    def chosen(self) -> EngineRow:
        """The engine that serves on a CPU like this one."""
        return next(row for row in self.rows if row.chosen)

    def lines(self) -> list[str]:
        """The report as a text table: a header and one line per engine."""
        head = (
            f"{'engine':<16} {'images/s':>9} {'accuracy':>9} {'change':>8} {'agreement':>10} {'flips':>7} {'photos':>7}"
        )
        return [head, *(_line(row) for row in self.rows)]


def export(
    folder: Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    logits: np.ndarray | None = None,
    check: Callable[[], None] = lambda: None,
) -> EngineReport:
    """Convert an artifact for serving on a CPU, choose the safe precisions, and write the files beside the weights.

    Args:
        folder: the artifact, as ``artifact.save`` wrote it.
        pixels: validation photos as ``Preprocessing.pixels_of`` returns them, uint8 (N, S, S, 3), N ≥ 1, in any order.
        labels: their class indices, integers (N,).
        logits: torch's fp32 logits for them, (N, num_classes), if already computed; they save that time.
        check: called between steps of a few seconds; what it raises ends the work, and no file has changed.

    Returns:
        The measurements of each engine that could run here.
    """
    # Spread over all photos, which may be sorted by class; shuffled, so that any first few hold every class.
    sample = np.linspace(0, len(pixels) - 1, min(len(pixels), MAX_PHOTOS)).round().astype(int)
    sample = np.random.default_rng(0).permutation(sample)
    classifier, _ = artifact.load(folder)
    infer = _torch_infer(classifier)
    reference = _predict(infer, pixels[sample], check) if logits is None else logits[sample]
    benchmark = _Benchmark(pixels[sample], labels[sample], reference, check)
    before = benchmark.row("torch fp32", infer)
    graph = convert_classifier(classifier, pixels.shape[1])
    check()
    quantized = quantize(graph, benchmark.pixels[:CALIBRATION_PHOTOS])
    rows = {"f32": benchmark.graph_row(graph, "f32", num_photos=FEW_PHOTOS)}
    if cpu_has_bf16():
        rows["bf16"] = benchmark.graph_row(graph, "bf16")
    if cpu_has_int8():
        rows["int8"] = benchmark.graph_row(quantized, "int8")
    choice = choose(rows)
    check()
    write_graphs(folder, graph, quantized if choice.int8 else None, choice)
    served = choice.precision()
    return EngineReport((before, *(replace(row, chosen=name == served) for name, row in rows.items())))


def choose(rows: Mapping[str, EngineRow]) -> EngineChoice:
    """Choose the safe precisions, given the measured ones by ``EnginePrecision``; ``f32`` is always safe."""
    # By safety alone: each is faster than the one before on every architecture measured, and a choice by time would
    # differ from run to run.
    bf16 = "bf16" not in rows or rows["bf16"].is_safe
    int8 = "int8" in rows and rows["int8"].is_safe and rows["int8"].num_photos >= MIN_PHOTOS_INT8
    return EngineChoice(bf16=bf16, int8=int8)


def expected_flips(logits: np.ndarray, reference: np.ndarray) -> float:
    """The fraction of photos expected to change their label if the engine's error hit them at random.

    Args:
        logits: the engine's, (N, num_classes).
        reference: torch's in fp32, (N, num_classes).

    Returns:
        A fraction in [0, 0.5].
    """
    if reference.shape[1] < 2:
        return 0.0
    photos = np.arange(len(reference))
    first, second = np.argsort(-reference, axis=1)[:, :2].T
    margins = reference[photos, first] - reference[photos, second]
    errors = logits[photos, first] - logits[photos, second] - margins
    spread = float(np.sqrt(np.square(errors, dtype=np.float64).mean()))
    if spread == 0:
        return 0.0
    return float(np.mean([math.erfc(float(margin) / spread / math.sqrt(2)) / 2 for margin in margins]))


@dataclass(frozen=True)
class _Benchmark:
    """Photos (N, S, S, 3), their labels (N,), and torch's logits for them (N, num_classes)."""

    pixels: np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    check: Callable[[], None]

    def graph_row(
        self, model: openvino.Model, precision: EnginePrecision, *, num_photos: int = MAX_PHOTOS
    ) -> EngineRow:
        engine = compile_graph(model, precision, num_streams=1)
        return self.row(engine.name, lambda batch: engine.infer(0, batch), num_photos=num_photos)

    def row(self, name: str, infer: Infer, *, num_photos: int = 0) -> EngineRow:
        """Measure an engine on the first ``num_photos`` photos; 0 stands for torch, whose logits are known."""
        logits = _predict(infer, self.pixels[:num_photos], self.check) if num_photos else self.reference
        labels, reference = self.labels[: len(logits)], self.reference[: len(logits)]
        is_right = logits.argmax(1) == labels
        return EngineRow(
            engine=name,
            images_per_s=_speed(infer, self.pixels),
            num_photos=len(logits),
            accuracy=float(is_right.mean()),
            accuracy_change=float(is_right.mean() - (reference.argmax(1) == labels).mean()),
            agreement=float((logits.argmax(1) == reference.argmax(1)).mean()),
            expected_flips=expected_flips(logits, reference),
        )


def _line(row: EngineRow) -> str:
    mark = "  ← served on a CPU" if row.chosen else ""
    return (
        f"{row.engine:<16} {row.images_per_s:>9.1f} {row.accuracy:>9.2%} {row.accuracy_change:>+8.2%} "
        f"{row.agreement:>10.2%} {row.expected_flips:>7.2%} {row.num_photos:>7}{mark}"
    )


def _predict(infer: Infer, pixels: np.ndarray, check: Callable[[], None]) -> np.ndarray:
    batches = []
    for start in range(0, len(pixels), 8):
        check()
        batches.append(infer(pixels[start : start + 8]))
    return np.concatenate(batches)


def _speed(infer: Infer, pixels: np.ndarray) -> float:
    """Photos per second, one at a time, as a single client sees it."""
    infer(pixels[:1])
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < TIMED_S:
        infer(pixels[count % len(pixels)][None])
        count += 1
    return count / elapsed


def _torch_infer(classifier: nn.Module) -> Infer:
    def infer(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return classifier(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy()

    return infer

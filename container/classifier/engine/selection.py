"""A trained artifact → the graphs that a CPU serves, judged on photos; called at the end of `train`.

The graphs' files hold no time and no path: the same weights and photos give the same bytes.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from classifier.engine.base import GRAPH_FILE, QUANTIZED_FILE, EngineChoice, Precision
from classifier.engine.openvino import compile_graph
from classifier.engine.quantization import quantize
from classifier.host import cpu_has_bf16, cpu_has_int8
from classifier.vision import artifact

# Photos to judge on; and those enough to see that a conversion changed nothing.
MAX_PHOTOS, FEW_PHOTOS = 256, 48
CALIBRATION_PHOTOS = 64
# Fewer can't show that integers are safe.
MIN_PHOTOS_INT8 = 100
MAX_ACCURACY_LOSS = 0.003
# One photo in 250 with another label: on a test of some hundred photos the accuracy stays within 0.3 points.
MAX_EXPECTED_FLIPS = 0.004
TIMED_S = 0.3

Infer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One engine, judged on ``num_photos`` real photos.

    ``accuracy_change`` is against torch in fp32 on the same photos, as a share; ``agreement`` is the share of photos
    that both label alike; ``expected_flips`` is the share that gets another label, as its error and the photos'
    margins let expect, which shows more on few photos than counting does; ``images_per_s`` is for one photo at a time.
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
        """Whether it predicts as torch does, but for a photo in hundreds."""
        return self.accuracy_change >= -MAX_ACCURACY_LOSS and self.expected_flips <= MAX_EXPECTED_FLIPS


@dataclass(frozen=True)
class EngineReport:
    """What optimising bought: the first row is torch in fp32, as before; one of the others is served."""

    rows: tuple[EngineRow, ...]

    @property
    def chosen(self) -> EngineRow:
        return next(row for row in self.rows if row.chosen)

    @property
    def speedup(self) -> float:
        return self.chosen.images_per_s / self.rows[0].images_per_s

    def lines(self) -> list[str]:
        """A table, a line a row."""
        head = (
            f"{'engine':<16} {'images/s':>9} {'accuracy':>9} {'change':>8} {'agreement':>10} {'flips':>7} {'photos':>7}"
        )
        return [head, *(_line(row) for row in self.rows)]


def _line(row: EngineRow) -> str:
    mark = "  ← served on a CPU" if row.chosen else ""
    return (
        f"{row.engine:<16} {row.images_per_s:>9.1f} {row.accuracy:>9.2%} {row.accuracy_change:>+8.2%} "
        f"{row.agreement:>10.2%} {row.expected_flips:>7.2%} {row.num_photos:>7}{mark}"
    )


def export(folder: Path, pixels: np.ndarray, labels: np.ndarray, *, logits: np.ndarray | None = None) -> EngineReport:
    """Convert an artifact for serving on a CPU, choose the precisions that are safe, and write all beside the weights.

    Args:
        folder: the artifact, as ``artifact.save`` left it.
        pixels: validation photos as ``Preprocessing.pixels_of`` gives them, uint8 (N, S, S, 3), N ≥ 1, in any order.
        labels: their classes' indices, integers (N,).
        logits: what torch predicts for them in fp32, (N, num_classes), where that is known; it saves its time.
    """
    # Spread over all, which may lie class by class.
    sample = np.linspace(0, len(pixels) - 1, min(len(pixels), MAX_PHOTOS)).round().astype(int)
    sample = np.random.default_rng(0).permutation(sample)
    classifier, _ = artifact.load(folder)
    infer = _torch_infer(classifier)
    reference = _predict(infer, pixels[sample]) if logits is None else logits[sample]
    judge = _Judge(pixels[sample], labels[sample], reference)
    before = judge.row("torch fp32", infer)
    graph = _convert(classifier, pixels.shape[1])
    quantized = quantize(graph, judge.pixels[:CALIBRATION_PHOTOS])
    rows = {"f32": judge.graph_row(graph, "f32", num_photos=FEW_PHOTOS)}
    if cpu_has_bf16():
        rows["bf16"] = judge.graph_row(graph, "bf16")
    if cpu_has_int8():
        rows["int8"] = judge.graph_row(quantized, "int8")
    choice = choose(rows)
    _write(folder, graph, quantized if choice.int8 else None, choice)
    served = choice.precision()
    return EngineReport((before, *(replace(row, chosen=name == served) for name, row in rows.items())))


def choose(rows: Mapping[str, EngineRow]) -> EngineChoice:
    """The precisions that are safe, of those that could be tried here; by ``Precision``, ``f32`` always among them."""
    # By safety alone: each is faster than the one before on every architecture tried, and a choice by time would differ
    # from run to run.
    bf16 = "bf16" not in rows or rows["bf16"].is_safe
    int8 = "int8" in rows and rows["int8"].is_safe and rows["int8"].num_photos >= MIN_PHOTOS_INT8
    return EngineChoice(bf16=bf16, int8=int8)


def graph_of(folder: Path) -> openvino.Model:
    """An artifact's weights as a graph, not quantized.

    Raises:
        ArtifactError: the folder holds no artifact, or one whose parts do not fit each other.
    """
    classifier, manifest = artifact.load(folder)
    return _convert(classifier, manifest.preprocessing.crop)


class _Served(nn.Module):
    """Pixels as the decoder leaves them, (N, S, S, 3), → logits: the permutation becomes part of the graph."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(pixels.permute(0, 3, 1, 2))


def _convert(classifier: nn.Module, side: int) -> openvino.Model:
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, side, side, 3])
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO traces, which torch deprecates; what a trace leaves out (branches on sizes) is fixed here.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        model = openvino.convert_model(
            _Served(classifier).eval(), example_input=example, input=[("pixels", shape, openvino.Type.u8)]
        )
    # The converter's version and arguments; the graph works without.
    for key in list(model.get_rt_info()):
        del model.get_rt_info()[key]
    return model


def _write(folder: Path, graph: openvino.Model, quantized: openvino.Model | None, choice: EngineChoice) -> None:
    _save(graph, folder / GRAPH_FILE)
    if quantized is not None:
        _save(quantized, folder / QUANTIZED_FILE)
    choice.write(folder)


def _save(model: openvino.Model, path: Path) -> None:
    # OpenVINO names by counting what the process has made so far.
    model.set_friendly_name("classifier")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    # In full: weights of half the bits would move the logits on a CPU that computes in fp32.
    openvino.save_model(model, path, compress_to_fp16=False)


@dataclass(frozen=True)
class _Judge:
    """Photos, their labels, and torch's logits for them."""

    pixels: np.ndarray
    labels: np.ndarray
    reference: np.ndarray

    def graph_row(self, model: openvino.Model, precision: Precision, *, num_photos: int = MAX_PHOTOS) -> EngineRow:
        engine = compile_graph(model, precision, num_streams=1)
        return self.row(engine.name, lambda batch: engine.infer(0, batch), num_photos=num_photos)

    def row(self, name: str, infer: Infer, *, num_photos: int = 0) -> EngineRow:
        """Judge an engine on so many of the photos; on none, it is torch itself."""
        found = _predict(infer, self.pixels[:num_photos]) if num_photos else self.reference
        labels, reference = self.labels[: len(found)], self.reference[: len(found)]
        is_right = found.argmax(1) == labels
        return EngineRow(
            engine=name,
            images_per_s=_speed(infer, self.pixels),
            num_photos=len(found),
            accuracy=float(is_right.mean()),
            accuracy_change=float(is_right.mean() - (reference.argmax(1) == labels).mean()),
            agreement=float((found.argmax(1) == reference.argmax(1)).mean()),
            expected_flips=expected_flips(found, reference),
        )


def expected_flips(logits: np.ndarray, reference: np.ndarray) -> float:
    """The share of photos that an engine's error would give another label, if it fell on them at random.

    Args:
        logits: the engine's, (N, num_classes).
        reference: torch's in fp32, likewise.
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


def _predict(infer: Infer, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([infer(pixels[start : start + 8]) for start in range(0, len(pixels), 8)])


def _speed(infer: Infer, pixels: np.ndarray) -> float:
    """Photos a second, one at a time, as a lone caller sees it."""
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

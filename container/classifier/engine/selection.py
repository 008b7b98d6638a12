"""The choice of a CPU's engine for a model: which precisions lose no accuracy, measured on validation photos.

Called at the end of `train`. The files that it writes contain no time and no path: equal weights and photos give equal
bytes, where the photos can be measured within the time allowed.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino
import torch
from torch import nn

from classifier.contract.hyperparameters import CpuEngine
from classifier.engine.base import EngineChoice, EnginePrecision
from classifier.engine.convert import convert_classifier, write_graphs
from classifier.engine.openvino import compile_graph
from classifier.engine.quantization import quantize
from classifier.host import cpu_has_bf16, cpu_has_int8
from classifier.vision import artifact

CALIBRATION_PHOTOS = 64
# Photos are measured for so long, in all engines together.
BUDGET_S = 60.0
CHUNK = 32
# The loss of accuracy that is measured, and the one that the photos leave possible at 95 %; 133 photos on which nothing
# changes are the fewest that suffice.
MAX_LOSS = 0.003
MAX_POSSIBLE_LOSS = 0.02
Z_95 = 1.6448536269514722
TIMED_S = 0.3
# From the slowest on: the order was the same on every architecture measured, and a choice by the times of one run would
# differ from run to run.
_BY_SPEED: tuple[EnginePrecision, ...] = ("f32", "bf16", "int8")

Infer = Callable[[np.ndarray], np.ndarray]


class Photos(Protocol):
    """Photos as ``Preprocessing.pixels_of`` returns them; an array, or decoded when they are asked for."""

    def __getitem__(self, indices: np.ndarray, /) -> Any:
        """Pixels of the photos with these indices, uint8 (N, S, S, 3)."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """Measurements of one engine on ``num_photos`` real photos.

    ``accuracy_change`` is the difference to torch in fp32 on the same photos, a fraction; ``lost`` and ``gained`` are
    the photos that torch alone or the engine alone labels rightly; ``possible_loss`` is the most accuracy that the
    engine may lose on other photos, at 95 % confidence; ``images_per_s`` is for one photo at a time.
    """

    engine: str
    images_per_s: float
    num_photos: int
    accuracy: float
    accuracy_change: float
    lost: int
    gained: int
    possible_loss: float
    chosen: bool = False

    @property
    def is_safe(self) -> bool:
        """Whether the loss of accuracy stays within the limits."""
        return self.accuracy_change >= -MAX_LOSS and self.possible_loss <= MAX_POSSIBLE_LOSS

    def describe(self) -> str:
        """What was measured, in words."""
        return (
            f"accuracy {self.accuracy_change:+.2%} on {self.num_photos:,} validation photos ({self.lost} lost, "
            f"{self.gained} gained), at worst {-self.possible_loss:+.2%} at 95 % confidence"
        )


@dataclass(frozen=True)
class EngineReport:
    """Measurements of all engines: torch in fp32 first, as the reference; one of the others is chosen for serving.

    ``reasons`` are sentences: which engine serves and why, and why none of the faster ones does.
    """

    rows: tuple[EngineRow, ...]
    reasons: tuple[str, ...]

    @property
    def chosen(self) -> EngineRow | None:
        """The engine that serves on a CPU like this one; None if it could not be measured here."""
        return next((row for row in self.rows if row.chosen), None)

    def lines(self) -> list[str]:
        """The report as text: a table with one line per engine, and the reasons."""
        head = (
            f"{'engine':<16} {'images/s':>9} {'accuracy':>9} {'change':>8} {'lost':>5} {'gained':>6} "
            f"{'loss at 95 %':>12} {'photos':>7}"
        )
        return [head, *(_line(row) for row in self.rows), *self.reasons]


def export(
    folder: Path,
    photos: Photos,
    labels: np.ndarray,
    *,
    cpu_engine: CpuEngine = "auto",
    check: Callable[[], None] = lambda: None,
) -> EngineReport:
    """Convert an artifact for serving on a CPU, choose the precision, and write the files beside the weights.

    Args:
        folder: the artifact, as ``artifact.save`` wrote it.
        photos: all validation photos, N ≥ 1, in any order.
        labels: their class indices, integers (N,).
        cpu_engine: the precision to serve in, whatever is measured; ``auto`` chooses by the measurements.
        check: called between steps of a few seconds; what it raises ends the work, and no file has changed.

    Returns:
        The measurements of each engine that could run here.
    """
    # Shuffled, since they may be sorted by class and any first few should hold every class.
    order = np.random.default_rng(0).permutation(len(labels))
    classifier, _ = artifact.load(folder)
    check()
    calibration = photos[order[:CALIBRATION_PHOTOS]]
    graph = convert_classifier(classifier, calibration.shape[1])
    check()
    quantized = quantize(graph, calibration) if cpu_has_int8() or cpu_engine == "int8" else None
    engines = {"torch fp32": _torch_infer(classifier), **_open(graph, quantized)}
    measured = _measure(engines, _chunks(photos, labels, order), check)
    reference, *others = [measured[name].row(name, measured["torch fp32"], calibration) for name in measured]
    by_name = {row.engine: row for row in others}
    rows: dict[EnginePrecision, EngineRow] = {
        one: by_name[f"OpenVINO {one}"] for one in _BY_SPEED if f"OpenVINO {one}" in by_name
    }
    choice, reasons = choose(rows, cpu_engine)
    reasons += _note_unmeasured(reference.num_photos, len(labels))
    check()
    write_graphs(folder, graph, quantized if choice.int8 else None, choice)
    served = choice.precision()
    return EngineReport((reference, *(replace(row, chosen=name == served) for name, row in rows.items())), reasons)


def choose(rows: Mapping[EnginePrecision, EngineRow], cpu_engine: CpuEngine) -> tuple[EngineChoice, tuple[str, ...]]:
    """Choose the precisions to serve in.

    Args:
        rows: the engines that were measured; ``f32`` is always safe.
        cpu_engine: the precision asked for.

    Returns:
        The choice, and sentences that explain it.
    """
    if cpu_engine != "auto":
        choice = EngineChoice(bf16=cpu_engine == "bf16", int8=cpu_engine == "int8")
        wanted: EnginePrecision = "f32" if cpu_engine == "fp32" else cpu_engine
        if wanted not in rows:
            return choice, (f"{wanted} is served on CPUs that support it, since cpu_engine={cpu_engine}; not measured",)
        return choice, (f"{wanted} is served, since cpu_engine={cpu_engine}: {rows[wanted].describe()}",)
    safe = {name: name in rows and rows[name].is_safe for name in _BY_SPEED}
    choice = EngineChoice(bf16=safe["bf16"], int8=safe["int8"])
    served: EnginePrecision = "int8" if choice.int8 else "bf16" if choice.bf16 else "f32"
    reason = f"{served} is served, the fastest engine that is known to keep the accuracy"
    if served in rows:
        reason += f": {rows[served].describe()}"
    faster = _BY_SPEED[_BY_SPEED.index(served) + 1 :]
    return choice, (reason, *(_explain_refusal(name, rows.get(name)) for name in faster))


def possible_loss(lost: int, gained: int, num_photos: int) -> float:
    """The upper limit of a loss of accuracy between paired classifiers, one-sided, at 95 % confidence.

    The score interval of Tango (1998) for the difference of paired proportions. It is asymmetric, valid for few
    photos, and above zero where no photo changed: 2.7 / (n + 2.7).

    Args:
        lost: photos that only the first classifier labels rightly.
        gained: photos that only the second labels rightly.
        num_photos: all photos, at least 1.

    Returns:
        A fraction in (0, 1].
    """
    low, high = (lost - gained) / num_photos, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        is_possible = lost - gained - num_photos * middle > -Z_95 * _deviation(lost, gained, num_photos, middle)
        low, high = (middle, high) if is_possible else (low, middle)
    return high


def _deviation(lost: int, gained: int, num_photos: int, loss: float) -> float:
    """The standard deviation of ``lost - gained`` if the loss were this, by the most likely share of gained photos."""
    linear = loss * (2 * num_photos - lost + gained) - lost - gained
    constant = -gained * loss * (1 - loss)
    share = (math.sqrt(max(linear**2 - 8 * num_photos * constant, 0)) - linear) / (4 * num_photos)
    return math.sqrt(max(num_photos * (2 * share + loss * (1 - loss)), 0))


@dataclass
class _Measured:
    """Per photo, whether an engine labels it rightly."""

    infer: Infer
    is_right: list[bool] = field(default_factory=list)

    def row(self, name: str, reference: "_Measured", photos: np.ndarray) -> EngineRow:
        right, before = np.array(self.is_right), np.array(reference.is_right)
        lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
        return EngineRow(
            engine=name,
            images_per_s=_speed(self.infer, photos),
            num_photos=len(right),
            accuracy=float(right.mean()),
            accuracy_change=(gained - lost) / len(right),
            lost=lost,
            gained=gained,
            possible_loss=0.0 if self is reference else possible_loss(lost, gained, len(right)),
        )


def _open(graph: openvino.Model, quantized: openvino.Model | None) -> dict[str, Infer]:
    """The engines that this CPU supports, by name."""
    graphs: dict[EnginePrecision, openvino.Model] = {"f32": graph}
    if cpu_has_bf16():
        graphs["bf16"] = graph
    if cpu_has_int8() and quantized is not None:
        graphs["int8"] = quantized
    engines = [compile_graph(model, precision, num_streams=1) for precision, model in graphs.items()]
    return {engine.name: lambda batch, engine=engine: engine.infer(0, batch) for engine in engines}


def _chunks(photos: Photos, labels: np.ndarray, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        yield photos[part], labels[part]


def _measure(
    engines: Mapping[str, Infer], chunks: Iterator[tuple[np.ndarray, np.ndarray]], check: Callable[[], None]
) -> dict[str, _Measured]:
    """Let all engines classify the same photos, until there are no more or the time is used up."""
    measured = {name: _Measured(infer) for name, infer in engines.items()}
    start = time.monotonic()
    for pixels, labels in chunks:
        for one in measured.values():
            check()
            one.is_right += [bool(right) for right in one.infer(pixels).argmax(1) == labels]
        if time.monotonic() - start > BUDGET_S:
            break
    return measured


def _explain_refusal(name: EnginePrecision, row: EngineRow | None) -> str:
    if row is None:
        return f"{name} is not served: not measured, since this CPU does not support it (cpu_engine={name} serves it)"
    if row.accuracy_change < -MAX_LOSS:
        limit = f"at most {MAX_LOSS:.1%} may be lost"
    else:
        limit = f"only less than {MAX_POSSIBLE_LOSS:.0%} would be safe, for which more photos may be needed"
    return f"{name} is not served: {row.describe()}; {limit} (cpu_engine={name} serves it all the same)"


def _note_unmeasured(num_measured: int, num_photos: int) -> tuple[str, ...]:
    if num_measured == num_photos:
        return ()
    return (
        f"{num_measured:,} of {num_photos:,} validation photos, drawn at random, were measured in {BUDGET_S:.0f} s",
    )


def _line(row: EngineRow) -> str:
    mark = "  ← served on a CPU" if row.chosen else ""
    return (
        f"{row.engine:<16} {row.images_per_s:>9.1f} {row.accuracy:>9.2%} {row.accuracy_change:>+8.2%} {row.lost:>5} "
        f"{row.gained:>6} {row.possible_loss:>12.2%} {row.num_photos:>7}{mark}"
    )


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

"""Selection of the engine that serves an artifact on this machine, and the memory that it will take."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.engine.base import (
    CHOICE_FILE,
    GRAPH_FILE,
    QUANTIZED_FILE,
    SLOTS_PER_STREAM,
    Engine,
    EngineChoice,
    EnginePrecision,
    file_hash,
)
from classifier.errors import ArtifactError
from classifier.host import has_gpu, num_cores
from classifier.vision.manifest import WEIGHTS_FILE, ModelManifest

# OpenVINO is imported only where it runs: not on a GPU.
if TYPE_CHECKING:
    import openvino

_log = logging.getLogger(__name__)

# A graph's weights as the mapped file, and once more in the kernels' layout. Measured growth of the process, fp32, two
# cores, weights in parentheses: ResNet-18 98 MiB (42), ConvNeXt-Tiny 248 (105), MobileNetV2 35 (8).
GRAPH_FACTOR = 2.5
# Without a graph file nothing is mapped, and the conversion keeps a copy: ResNet-18 154 MiB.
CONVERSION_FACTOR = 4
# Activations of one slot at 224 × 224 pixels (3 to 10 MiB in those models), and the graph itself.
SLOT_BYTES, GRAPH_BYTES = 10 << 20, 24 << 20
# Importing torch and torchvision, once in a process.
TORCH_BYTES = 680 << 20
# On a GPU: fp32 weights while their fp16 copy is made, and the activations of a batch at 224 × 224 pixels. They are
# not measured, but low enough to refuse only what can't fit; a model that does not fit after all is reported, too.
GPU_FACTOR, GPU_BATCH_BYTES = 1.5, 512 << 20


def open_engine(folder: Path, manifest: ModelManifest) -> Engine:
    """Load an artifact into the engine for this machine: torch on a GPU, else OpenVINO on the CPU.

    A graph that is damaged or was not completed is replaced by a conversion of the weights, with a warning.

    Raises:
        ArtifactError: the weights are missing, malformed or do not match the manifest.
    """
    if has_gpu():
        from classifier.engine.cuda import TorchEngine  # noqa: PLC0415 - imports torch

        return TorchEngine.open(folder, manifest)
    return _open_on_cpu(folder, manifest)


def _open_on_cpu(folder: Path, manifest: ModelManifest) -> Engine:
    from classifier.engine.openvino import compile_graph  # noqa: PLC0415 - imports OpenVINO

    choice = _read_choice(folder)
    precisions = _precisions(choice)
    for precision in precisions:
        try:
            graph = _read_graph(_graph_path(folder, precision), manifest, choice)
        except ArtifactError as error:
            _log.warning("%s; it is not used", error)
        else:
            if graph is not None:
                return compile_graph(graph, precision)
    # An artifact from another tool, or of a training that was stopped: converted now, in a few seconds.
    from classifier.engine.convert import convert_artifact  # noqa: PLC0415 - imports torch

    return compile_graph(convert_artifact(folder), precisions[-1])


def memory_needed(folder: Path, manifest: ModelManifest) -> int:
    """Estimate the bytes of memory that ``open_engine`` takes for an artifact, from the files that it will read."""
    choice = _read_choice(folder)
    path = _graph_path(folder, choice.precision())
    num_slots = num_cores() * SLOTS_PER_STREAM
    activations = GRAPH_BYTES + num_slots * SLOT_BYTES * manifest.preprocessing.crop**2 // 224**2
    if path.name in choice.sha256 and not has_gpu():
        return activations + int(GRAPH_FACTOR * _size(path.with_suffix(".bin")))
    torch_bytes = 0 if "torch" in sys.modules else TORCH_BYTES
    return activations + torch_bytes + CONVERSION_FACTOR * _size(folder / WEIGHTS_FILE)


def gpu_memory_needed(folder: Path, manifest: ModelManifest) -> int:
    """Estimate the bytes of the GPU's memory that ``open_engine`` takes for an artifact."""
    return int(GPU_FACTOR * _size(folder / WEIGHTS_FILE)) + GPU_BATCH_BYTES * manifest.preprocessing.crop**2 // 224**2


def _read_choice(folder: Path) -> EngineChoice:
    """Read the choice; without a legible one there are no graphs, and fp32 alone is known to be safe."""
    try:
        return EngineChoice.read(folder)
    except ArtifactError as error:
        _log.warning("%s; it is not used", error)
        return EngineChoice()


def _precisions(choice: EngineChoice) -> tuple[EnginePrecision, ...]:
    """The precision to serve in, and the one without the quantized graph if that is another."""
    return tuple(dict.fromkeys((choice.precision(), choice.model_copy(update={"int8": False}).precision())))


def _graph_path(folder: Path, precision: EnginePrecision) -> Path:
    return folder / (QUANTIZED_FILE if precision == "int8" else GRAPH_FILE)


def _size(path: Path) -> int:
    # A missing file has its error where it is read.
    return path.stat().st_size if path.is_file() else 0


def _read_graph(path: Path, manifest: ModelManifest, choice: EngineChoice) -> openvino.Model | None:
    """Read a graph, or return None if the artifact has none.

    Raises:
        ArtifactError: the graph is damaged, was not completed or does not match the manifest.
    """
    from classifier.engine.openvino import openvino_core  # noqa: PLC0415 - imports OpenVINO

    files = (path, path.with_suffix(".bin"))
    if path.name not in choice.sha256:
        if not path.exists():
            return None
        raise ArtifactError(f"{path} is not listed in {CHOICE_FILE}, so its conversion was not completed")
    try:
        damaged = [file for file in files if file_hash(file) != choice.sha256.get(file.name)]
        if damaged:
            raise ArtifactError(f"{damaged[0]} is damaged: {CHOICE_FILE} lists another SHA-256")
        model = openvino_core().read_model(path)
    except OSError as error:
        raise ArtifactError(f"{error.filename} can't be read: {(error.strerror or str(error)).lower()}") from None
    except RuntimeError as error:
        raise ArtifactError(f"{path}: {_last_line(error)}") from None
    _check_graph(model, manifest, path)
    return model


def _check_graph(model: openvino.Model, manifest: ModelManifest, path: Path) -> None:
    side, num_classes = manifest.preprocessing.crop, len(manifest.classes)
    expected = [("input", f"[?,{side},{side},3]"), ("output", f"[?,{num_classes}]")]
    actual = [("input", str(model.input().partial_shape)), ("output", str(model.output().partial_shape))]
    for (name, wanted), (_, shape) in zip(expected, actual, strict=True):
        if shape != wanted:
            raise ArtifactError(f"{path}: the shape of its {name} is {shape}, but model.json requires {wanted}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unreadable"])[-1]

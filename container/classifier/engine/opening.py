"""Selection of the engine that serves an artifact on this machine, and the memory that it will take."""

import sys
from pathlib import Path

import openvino

from classifier.engine.base import CHOICE_FILE, GRAPH_FILE, QUANTIZED_FILE, Engine, EngineChoice, EnginePrecision
from classifier.engine.openvino import SLOTS_PER_STREAM, compile_graph, openvino_core
from classifier.errors import ArtifactError
from classifier.host import has_gpu, num_cores
from classifier.vision.manifest import WEIGHTS_FILE, ModelManifest

# A graph's weights as the mapped file, and once more in the kernels' layout. Measured growth of the process, fp32, two
# cores, weights in parentheses: ResNet-18 98 MiB (42), ConvNeXt-Tiny 248 (105), MobileNetV2 35 (8).
GRAPH_FACTOR = 2.5
# Without a graph file nothing is mapped, and the conversion keeps a copy: ResNet-18 154 MiB.
CONVERSION_FACTOR = 4
# Activations of one slot at 224 × 224 pixels (3 to 10 MiB in those models), and the graph itself.
SLOT_BYTES, GRAPH_BYTES = 10 << 20, 24 << 20
# Importing torch and torchvision, once in a process.
TORCH_BYTES = 680 << 20


def open_engine(folder: Path, manifest: ModelManifest) -> Engine:
    """Load an artifact into the engine for this machine: torch on a GPU, else OpenVINO on the CPU.

    Raises:
        ArtifactError: a file of the artifact is missing, malformed or does not match the manifest.
    """
    if has_gpu():
        from classifier.engine.cuda import TorchEngine  # noqa: PLC0415 - imports torch

        return TorchEngine.open(folder, manifest)
    precision = EngineChoice.read(folder).precision()
    return compile_graph(_read_graph(folder, manifest, precision), precision)


def memory_needed(folder: Path, manifest: ModelManifest) -> int:
    """Estimate the bytes of memory that ``open_engine`` takes for an artifact, from the files that it will read.

    Raises:
        ArtifactError: the file with the choice of precision is malformed.
    """
    path = _graph_path(folder, EngineChoice.read(folder).precision())
    num_slots = num_cores() * SLOTS_PER_STREAM
    activations = GRAPH_BYTES + num_slots * SLOT_BYTES * manifest.preprocessing.crop**2 // 224**2
    if path.exists() and not has_gpu():
        return activations + int(GRAPH_FACTOR * _size(path.with_suffix(".bin")))
    torch_bytes = 0 if "torch" in sys.modules else TORCH_BYTES
    return activations + torch_bytes + CONVERSION_FACTOR * _size(folder / WEIGHTS_FILE)


def _graph_path(folder: Path, precision: EnginePrecision) -> Path:
    return folder / (QUANTIZED_FILE if precision == "int8" else GRAPH_FILE)


def _size(path: Path) -> int:
    # A missing file has its error where it is read.
    return path.stat().st_size if path.is_file() else 0


def _read_graph(folder: Path, manifest: ModelManifest, precision: EnginePrecision) -> openvino.Model:
    path = _graph_path(folder, precision)
    if precision != "int8" and not path.exists():
        # An artifact from an older version or another tool: converted now, which needs torch and a few seconds.
        from classifier.engine.convert import convert_artifact  # noqa: PLC0415 - imports torch

        return convert_artifact(folder)
    if not path.is_file():
        raise ArtifactError(f"{folder} has no {path.name}, which {CHOICE_FILE} refers to")
    if not path.read_bytes().startswith(b"<?xml"):
        # OpenVINO would try to parse it as a model of every other framework that it supports.
        raise ArtifactError(f"{path} is not an OpenVINO graph")
    try:
        model = openvino_core().read_model(path)
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

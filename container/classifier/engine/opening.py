"""Selection of the engine that serves an artifact on this machine."""

from pathlib import Path

import openvino

from classifier.engine.base import CHOICE_FILE, GRAPH_FILE, QUANTIZED_FILE, Engine, EngineChoice, EnginePrecision
from classifier.engine.openvino import compile_graph, openvino_core
from classifier.errors import ArtifactError
from classifier.host import has_gpu
from classifier.vision.manifest import ModelManifest


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


def _read_graph(folder: Path, manifest: ModelManifest, precision: EnginePrecision) -> openvino.Model:
    path = folder / (QUANTIZED_FILE if precision == "int8" else GRAPH_FILE)
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

"""A batch of pixels → logits: OpenVINO on a CPU, torch on a GPU, behind one shape. Imports no torch without need.

Pixels come as uint8 (N, S, S, 3), as the decoder leaves them, or as float32 of the same range; the permutation and the
normalisation are inside the graph. Logits leave as float32 (N, num_classes).
"""

from pathlib import Path

import openvino

from classifier.engine.base import CHOICE_FILE, GRAPH_FILE, QUANTIZED_FILE, Engine, EngineChoice, Precision
from classifier.engine.openvino import _openvino_core, compile_graph
from classifier.errors import ArtifactError
from classifier.host import has_gpu
from classifier.vision.manifest import ModelManifest


def open_engine(folder: Path, manifest: ModelManifest) -> Engine:
    """The engine for an artifact on this machine: torch where there is a GPU, OpenVINO where there is none.

    Raises:
        ArtifactError: the folder does not hold what its manifest says.
    """
    if has_gpu():
        from classifier.engine.cuda import TorchEngine  # noqa: PLC0415 - imports torch

        return TorchEngine.open(folder, manifest)
    precision = EngineChoice.read(folder).precision()
    return compile_graph(_read_graph(folder, manifest, precision), precision)


def _read_graph(folder: Path, manifest: ModelManifest, precision: Precision) -> openvino.Model:
    path = folder / (QUANTIZED_FILE if precision == "int8" else GRAPH_FILE)
    if precision != "int8" and not path.exists():
        # An artifact of before, or of elsewhere: converted now, which needs torch and a few seconds.
        from classifier.engine.selection import graph_of  # noqa: PLC0415 - imports torch

        return graph_of(folder)
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {path.name}, which its {CHOICE_FILE} speaks of")
    if not path.read_bytes().startswith(b"<?xml"):
        # OpenVINO would try it as the file of every other framework that it knows.
        raise ArtifactError(f"{path} is no OpenVINO graph")
    try:
        model = _openvino_core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: {_last_line(error)}") from None
    _check_graph(model, manifest, path)
    return model


def _check_graph(model: openvino.Model, manifest: ModelManifest, path: Path) -> None:
    side, num_classes = manifest.preprocessing.crop, len(manifest.classes)
    expected = [("input", f"[?,{side},{side},3]"), ("output", f"[?,{num_classes}]")]
    found = [("input", str(model.input().partial_shape)), ("output", str(model.output().partial_shape))]
    for (name, wanted), (_, shape) in zip(expected, found, strict=True):
        if shape != wanted:
            raise ArtifactError(f"{path}: its {name} is {shape}, but model.json asks for {wanted}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unreadable"])[-1]

"""Conversion of a trained artifact to an OpenVINO graph, and the graph's reproducible file.

The files contain no time and no path: equal weights give equal bytes.
"""

import shutil
import warnings
from pathlib import Path

import openvino
import torch
from torch import Tensor, nn

from classifier.engine.base import GRAPH_FILE, QUANTIZED_FILE, EngineChoice, file_hash, remove_graphs
from classifier.vision import artifact


def convert_artifact(folder: Path) -> openvino.Model:
    """Convert an artifact's weights to a graph, not quantized: uint8 (N, S, S, 3) to logits, float32 (N, num_classes).

    Raises:
        ArtifactError: the folder has no artifact, or one whose files do not match.
    """
    classifier, manifest = artifact.load(folder)
    return convert_classifier(classifier, manifest.preprocessing.crop)


def convert_classifier(classifier: nn.Module, side: int) -> openvino.Model:
    """Convert a classifier to a graph that takes pixels as decoded.

    Args:
        classifier: takes pixels (N, 3, S, S) in 0–255 and returns logits (N, num_classes).
        side: S, the side of the model's input in pixels.

    Returns:
        A graph: uint8 (N, S, S, 3) to logits, float32 (N, num_classes).
    """
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, side, side, 3])
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO traces, which torch deprecates; what a trace leaves out (branches on sizes) is fixed here.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        model = openvino.convert_model(
            _ChannelsLast(classifier).eval(), example_input=example, input=[("pixels", shape, openvino.Type.u8)]
        )
    # The converter's version and arguments, which the graph does not need.
    for key in list(model.get_rt_info()):
        del model.get_rt_info()[key]
    return model


def save_graph(model: openvino.Model, path: Path) -> None:
    """Write a graph as ``path`` (XML) and its weights beside it (.bin); the same graph always gives the same bytes."""
    # OpenVINO numbers the names by what the process has created so far.
    model.set_friendly_name("classifier")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    # In full precision: fp16 weights would change the logits on a CPU that computes in fp32.
    openvino.save_model(model, path, compress_to_fp16=False)


def write_graphs(folder: Path, graph: openvino.Model, quantized: openvino.Model | None, choice: EngineChoice) -> None:
    """Write the graphs beside the weights, and last the choice, which lists them.

    They are written aside and renamed, so an interruption at any time leaves an artifact that can be served.
    """
    remove_graphs(folder)
    aside = folder / ".graphs.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    save_graph(graph, aside / GRAPH_FILE)
    if quantized is not None:
        save_graph(quantized, aside / QUANTIZED_FILE)
    hashes = {}
    for path in sorted(aside.iterdir()):
        hashes[path.name] = file_hash(path)
        path.replace(folder / path.name)
    aside.rmdir()
    choice.model_copy(update={"sha256": hashes}).write(folder)


class _ChannelsLast(nn.Module):
    """A classifier of pixels as decoded, (N, S, S, 3); the permutation becomes part of the graph."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(pixels.permute(0, 3, 1, 2))

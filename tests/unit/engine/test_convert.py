"""Converted graphs: the artifact's logits, in memory and in every batch size."""

from pathlib import Path

import numpy as np
import openvino
import pytest

from classifier.engine.convert import convert_artifact, save_graph
from classifier.engine.openvino import compile_graph, openvino_core
from classifier.engine.quantization import quantize
from support.marks import GATE
from support.servers import drawn_pixels, torch_logits, write_artifact


@pytest.fixture(scope="module")
def graph(artifact_folder: Path) -> openvino.Model:
    return convert_artifact(artifact_folder)


def test_graph_returns_the_artifacts_logits_at_every_batch_size(artifact_folder: Path, graph: openvino.Model) -> None:
    pixels, _ = drawn_pixels(5)
    engine = compile_graph(graph, "f32")
    expected = torch_logits(artifact_folder, pixels)
    for size in range(1, 6):
        np.testing.assert_allclose(engine.infer(0, pixels[:size]), expected[:size], atol=1e-4)
    np.testing.assert_allclose(engine.infer(0, pixels.astype(np.float32)), expected, atol=1e-4)


def test_graph_read_back_from_its_file_returns_the_same_logits(graph: openvino.Model, tmp_path: Path) -> None:
    pixels, _ = drawn_pixels(5)
    save_graph(graph, tmp_path / "graph.xml")
    read_back = compile_graph(openvino_core().read_model(tmp_path / "graph.xml"), "f32")
    # fp16 weights in the file would change them by about 1e-4.
    np.testing.assert_allclose(
        read_back.infer(0, pixels), compile_graph(graph, "f32").infer(0, pixels), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("architecture", ["shufflenet_v2_x1_0", pytest.param("resnet18", marks=GATE)])
def test_int8_logits_stay_close_to_float_logits(tmp_path: Path, architecture: str) -> None:
    folder = write_artifact(tmp_path / "model", architecture=architecture)
    pixels, _ = drawn_pixels(24)
    graph = convert_artifact(folder)
    quantized = quantize(graph, pixels)
    exact = compile_graph(graph, "f32").infer(0, pixels)
    logits = compile_graph(quantized, "int8").infer(0, pixels)
    assert np.abs(logits - exact).mean() <= 0.15 * np.abs(exact).mean()
    assert any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops())
    assert not any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())

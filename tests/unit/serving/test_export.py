"""A trained artifact → what a CPU serves: the same predictions, the same bytes each time, and only what is safe."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.engine.base import EngineChoice
from classifier.engine.opening import open_engine
from classifier.engine.openvino import compile_graph
from classifier.engine.quantization import quantize
from classifier.engine.selection import EngineRow, choose, expected_flips, export, graph_of
from classifier.errors import ArtifactError
from classifier.host import cpu_has_int8
from classifier.vision import artifact
from classifier.vision.manifest import ModelManifest
from support.servers import drawn_pixels, write_artifact


def evaluated(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """torch's logits in fp32."""
    classifier, _ = artifact.load(folder)
    with torch.inference_mode():
        return classifier(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()


def row(*, change: float = 0.0, flips: float = 0.0, num_photos: int = 256) -> EngineRow:
    return EngineRow(
        engine="x",
        images_per_s=100,
        num_photos=num_photos,
        accuracy=0.9,
        accuracy_change=change,
        agreement=1,
        expected_flips=flips,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("export") / "model")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_weights_and_photos_give_the_same_bytes(folder: Path) -> None:
    pixels, labels = drawn_pixels(110)
    export(folder, pixels, labels)
    first = files(folder)
    assert {"openvino.xml", "openvino.bin", "engine.json"} <= set(first)
    export(folder, pixels, labels, logits=evaluated(folder, pixels))
    assert files(folder) == first
    assert not any(b"2026-" in data or str(folder).encode() in data for data in first.values())


def test_the_report_says_what_optimising_bought(folder: Path) -> None:
    report = export(folder, *drawn_pixels(6))
    assert report.rows[0].engine == "torch fp32"
    assert report.rows[1].engine == "OpenVINO f32"
    assert report.rows[1].agreement == 1
    assert [one.chosen for one in report.rows].count(True) == 1
    assert report.speedup > 0
    assert len(report.lines()) == 1 + len(report.rows)
    assert "served on a CPU" in "\n".join(report.lines())


def test_batches_of_every_size_give_the_artifacts_logits(folder: Path) -> None:
    pixels, _ = drawn_pixels(5)
    engine = compile_graph(graph_of(folder), "f32")
    expected = evaluated(folder, pixels)
    for size in range(1, 6):
        np.testing.assert_allclose(engine.infer(0, pixels[:size]), expected[:size], atol=1e-4)
    np.testing.assert_allclose(engine.infer(0, pixels.astype(np.float32)), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["resnet18", "shufflenet_v2_x1_0"])
def test_integers_stay_close_to_floats(tmp_path: Path, architecture: str) -> None:
    folder = write_artifact(tmp_path / "model", architecture=architecture)
    pixels, _ = drawn_pixels(24)
    graph = graph_of(folder)
    quantized = quantize(graph, pixels)
    exact = compile_graph(graph, "f32").infer(0, pixels)
    found = compile_graph(quantized, "int8").infer(0, pixels)
    error = np.abs(found - exact).mean()
    assert error <= 0.15 * np.abs(exact).mean()
    assert any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops())
    assert not any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())


def test_integers_are_served_when_photos_show_that_they_are_safe() -> None:
    assert choose({"f32": row(), "bf16": row(), "int8": row()}) == EngineChoice(bf16=True, int8=True)


@pytest.mark.parametrize("int8", [row(change=-0.01), row(flips=0.02), row(num_photos=50)])
def test_integers_are_not_served_when_they_may_harm(int8: EngineRow) -> None:
    assert choose({"f32": row(), "bf16": row(), "int8": int8}) == EngineChoice(bf16=True, int8=False)


def test_bf16_is_forbidden_by_a_measured_loss_alone() -> None:
    assert choose({"f32": row(), "bf16": row(change=-0.01)}) == EngineChoice(bf16=False)
    assert choose({"f32": row(), "bf16": row(flips=0.02)}) == EngineChoice(bf16=False)
    assert choose({"f32": row()}) == EngineChoice(bf16=True)


def test_expected_flips_are_those_that_are_found() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 3, (20_000, 5))
    for spread in (0.02, 0.2):
        logits = reference + rng.normal(0, spread, reference.shape)
        found = (logits.argmax(1) != reference.argmax(1)).mean()
        assert expected_flips(logits, reference) == pytest.approx(found, rel=0.2)
    assert expected_flips(reference, reference) == 0


def test_a_choice_falls_back_to_what_the_cpu_can() -> None:
    assert EngineChoice(bf16=False, int8=False).precision() == "f32"
    assert EngineChoice(int8=True).precision() == ("int8" if cpu_has_int8() else EngineChoice().precision())


def test_an_artifact_without_a_graph_is_converted_when_it_is_opened(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "model")
    EngineChoice(bf16=False).write(folder)
    pixels, _ = drawn_pixels(2)
    engine = open_engine(folder, ModelManifest.read(folder))
    np.testing.assert_allclose(engine.infer(0, pixels), evaluated(folder, pixels), atol=1e-4)
    assert not (folder / "openvino.xml").exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_a_damaged_graph_is_named(artifact_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(artifact_folder, tmp_path / "model")
    path = folder / "openvino.xml"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"\0garbage")
    else:
        manifest = (folder / "model.json").read_text(encoding="utf-8")
        (folder / "model.json").write_text(manifest.replace('"crop": 64', '"crop": 60'), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"openvino\.xml"):
        open_engine(folder, ModelManifest.read(folder))


@pytest.mark.parametrize("text", ["{", '{"int8": "perhaps"}', "[]"])
def test_a_damaged_choice_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"engine\.json"):
        EngineChoice.read(tmp_path)


def test_nothing_is_reported_to_anyone() -> None:
    assert sys.modules["openvino_telemetry"] is None

"""Opening an artifact's engine: its graph file, the fallback to the weights, damaged files."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classifier.engine import base
from classifier.engine.base import EngineChoice
from classifier.engine.convert import convert_artifact, write_graphs
from classifier.engine.opening import TORCH_BYTES, memory_needed, open_engine
from classifier.errors import ArtifactError
from classifier.vision.manifest import ModelManifest
from support.marks import GATE
from support.servers import drawn_pixels, export_artifact, torch_logits, write_artifact


def test_graph_read_from_its_file_returns_the_artifacts_logits(exported_folder: Path) -> None:
    pixels, _ = drawn_pixels(6)
    engine = open_engine(exported_folder, ModelManifest.read(exported_folder))
    # fp16 weights in the file would change them by about 1e-4.
    np.testing.assert_allclose(engine.infer(0, pixels), torch_logits(exported_folder, pixels), atol=1e-5)


def test_artifact_without_a_graph_is_converted_on_opening(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "model")
    EngineChoice(bf16=False).write(folder)
    pixels, _ = drawn_pixels(2)
    engine = open_engine(folder, ModelManifest.read(folder))
    np.testing.assert_allclose(engine.infer(0, pixels), torch_logits(folder, pixels), atol=1e-4)
    assert not (folder / "openvino.xml").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_the_input(folder: Path) -> None:
    manifest = (folder / "model.json").read_text(encoding="utf-8")
    (folder / "model.json").write_text(manifest.replace('"crop": 64', '"crop": 60'), encoding="utf-8")


def break_off_the_conversion(folder: Path) -> None:
    (folder / "engine.json").unlink()
    truncate(folder / "openvino.bin")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated graph": (lambda folder: truncate(folder / "openvino.xml"), "openvino.xml is damaged: engine.json lists"),
    "truncated weights": (lambda folder: truncate(folder / "openvino.bin"), "openvino.bin is damaged: engine.json"),
    "garbage": (lambda folder: (folder / "openvino.xml").write_bytes(b"\0garbage"), "openvino.xml is damaged"),
    "missing weights": (lambda folder: (folder / "openvino.bin").unlink(), "openvino.bin can't be read: no such file"),
    "interrupted": (break_off_the_conversion, "openvino.xml is not listed in engine.json, so its conversion was not"),
    "truncated choice": (lambda folder: truncate(folder / "engine.json"), "engine.json: "),
    "another input": (change_the_input, "openvino.xml: the shape of its input is"),
}


# The others are left to the gate.
QUICK = ("truncated graph", "interrupted", "another input")


@pytest.mark.parametrize(
    ("spoil", "warning"),
    [pytest.param(*case, id=name, marks=() if name in QUICK else GATE) for name, case in DAMAGES.items()],
)
def test_weights_are_served_instead_of_a_damaged_graph(
    exported_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], object],
    warning: str,
) -> None:
    folder = shutil.copytree(exported_folder, tmp_path / "model")
    spoil(folder)
    manifest = ModelManifest.read(folder)
    pixels, _ = drawn_pixels(2, side=manifest.preprocessing.crop)
    engine = open_engine(folder, manifest)
    np.testing.assert_allclose(engine.infer(0, pixels), torch_logits(folder, pixels), atol=1e-4)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(caplog.records)
    assert f"{folder}/{warning}" in caplog.text
    assert memory_needed(folder, manifest) > 0


def test_other_graph_is_served_instead_of_a_damaged_int8_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "cpu_has_int8", lambda: True)
    monkeypatch.setattr(base, "cpu_has_bf16", lambda: False)
    folder = write_artifact(tmp_path / "model", architecture="squeezenet1_1")
    graph = convert_artifact(folder)
    write_graphs(folder, graph, graph, EngineChoice(int8=True))
    truncate(folder / "openvino_int8.bin")
    # Without weights there is nothing to convert.
    (folder / "model.safetensors").unlink()
    assert open_engine(folder, ModelManifest.read(folder)).name == "OpenVINO f32"
    assert "openvino_int8.bin is damaged" in caplog.text


def test_graph_without_a_usable_file_or_weights_is_an_error(exported_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported_folder, tmp_path / "model")
    truncate(folder / "openvino.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"holds no model\.safetensors"):
        open_engine(folder, ModelManifest.read(folder))


def test_openvino_telemetry_is_disabled() -> None:
    assert sys.modules["openvino_telemetry"] is None


def resident_bytes() -> int:
    """The memory of this process, mapped files included."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def test_memory_estimate_covers_what_an_engine_takes(tmp_path: Path) -> None:
    # Of a network whose weights are most of what its engine takes.
    exported_folder = export_artifact(write_artifact(tmp_path / "model", architecture="resnet18"), only_fp32=True)
    manifest = ModelManifest.read(exported_folder)
    engines = [open_engine(exported_folder, manifest)]
    folders = [shutil.copytree(exported_folder, tmp_path / name) for name in ("a", "b", "c")]
    before = resident_bytes()
    engines += [open_engine(folder, manifest) for folder in folders]
    growth = (resident_bytes() - before) / len(folders)
    assert (exported_folder / "openvino.bin").stat().st_size < growth < memory_needed(exported_folder, manifest)
    assert memory_needed(exported_folder, manifest) < 3 * growth


def test_memory_estimate_counts_only_the_files_that_are_loaded(exported_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported_folder, tmp_path / "model")
    manifest = ModelManifest.read(folder)
    needed = memory_needed(folder, manifest)
    for name in ("model.safetensors", "openvino_int8.bin", "notes.bin"):
        with (folder / name).open("ab") as file:
            file.truncate(1 << 30)
    assert memory_needed(folder, manifest) == needed
    with (folder / "openvino.bin").open("ab") as file:
        file.truncate(1 << 30)
    assert memory_needed(folder, manifest) > needed + (2 << 30)


def test_memory_estimate_of_a_conversion_includes_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_artifact(tmp_path / "model")
    manifest = ModelManifest.read(folder)
    with_torch = memory_needed(folder, manifest)
    assert with_torch > 3 * (folder / "model.safetensors").stat().st_size
    monkeypatch.delitem(sys.modules, "torch")
    assert memory_needed(folder, manifest) == with_torch + TORCH_BYTES

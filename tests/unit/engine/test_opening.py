"""Opening an artifact's engine: its graph file, the fallback without one, damaged files."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.engine.base import EngineChoice
from classifier.engine.opening import TORCH_BYTES, memory_needed, open_engine
from classifier.errors import ArtifactError
from classifier.vision.manifest import ModelManifest
from support.servers import drawn_pixels, torch_logits, write_artifact


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


@pytest.mark.parametrize("damage", ["truncated", "garbage", "wrong shape"])
def test_error_names_a_damaged_graph(exported_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(exported_folder, tmp_path / "model")
    path = folder / "openvino.xml"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"\0garbage")
    else:
        manifest = (folder / "model.json").read_text(encoding="utf-8")
        (folder / "model.json").write_text(manifest.replace('"crop": 64', '"crop": 60'), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"openvino\.xml"):
        open_engine(folder, ModelManifest.read(folder))


def test_openvino_telemetry_is_disabled() -> None:
    assert sys.modules["openvino_telemetry"] is None


def resident_bytes() -> int:
    """The memory of this process, mapped files included."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def test_memory_estimate_covers_what_an_engine_takes(exported_folder: Path, tmp_path: Path) -> None:
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
    EngineChoice(bf16=False, int8=False).write(folder)
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

"""The accuracy gate: reproducible files, measured engines, and only safe precisions chosen."""

import shutil
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import openvino
import pytest

from classifier.engine import selection
from classifier.engine.base import EngineChoice
from classifier.engine.selection import MIN_PHOTOS_INT8, EngineReport, EngineRow, choose, expected_flips, export
from classifier.errors import Stopped
from support.servers import drawn_pixels, torch_logits, write_artifact

# Seconds for which an engine's speed is measured.
TIMED_S = 0.02


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


@dataclass(frozen=True)
class Exported:
    """An artifact that was exported, the photos, the report, and the number of calls of ``check``."""

    folder: Path
    pixels: np.ndarray
    labels: np.ndarray
    report: EngineReport
    num_checks: int


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small artifact, exported on as many photos as int8 needs."""
    folder = write_artifact(tmp_path_factory.mktemp("export") / "model")
    pixels, labels = drawn_pixels(MIN_PHOTOS_INT8)
    checks: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TIMED_S", TIMED_S)
        report = export(folder, pixels, labels, check=lambda: checks.append(None))
    return Exported(folder, pixels, labels, report, len(checks))


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TIMED_S", TIMED_S)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_weights_and_photos_give_equal_bytes(exported: Exported, tmp_path: Path) -> None:
    first = files(exported.folder)
    assert {"openvino.xml", "openvino.bin", "engine.json"} <= set(first)
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    export(folder, exported.pixels, exported.labels, logits=torch_logits(folder, exported.pixels))
    assert files(folder) == first
    assert not any(b"2026-" in data or str(exported.folder).encode() in data for data in first.values())


def test_stop_changes_no_file(exported: Exported) -> None:
    before, checks = files(exported.folder), count()

    def stop_at(number: int) -> None:
        if next(checks) == number:
            raise Stopped("SIGTERM")

    # Before the first photo, and when nothing but writing is left.
    for number in (1, exported.num_checks):
        checks = count(1)
        with pytest.raises(Stopped):
            export(exported.folder, exported.pixels[::-1], exported.labels[::-1], check=partial(stop_at, number))
        assert files(exported.folder) == before
    # One for each batch of eight photos, in torch and in every engine that runs here.
    assert exported.num_checks >= 13 + 6 + 2


def test_report_compares_the_engines(exported: Exported) -> None:
    report = exported.report
    assert report.rows[0].engine == "torch fp32"
    assert report.rows[1].engine == "OpenVINO f32"
    assert report.rows[1].agreement == 1
    assert [one.chosen for one in report.rows].count(True) == 1
    assert report.chosen.images_per_s > 0
    assert len(report.lines()) == 1 + len(report.rows)
    assert "served on a CPU" in "\n".join(report.lines())


def test_calibration_photos_are_shuffled_over_all_classes(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    pixels, labels = drawn_pixels(300)
    by_class = np.argsort(labels, kind="stable")
    pixels, labels = pixels[by_class], labels[by_class]
    calibrated: list[np.ndarray] = []

    def quantize(graph: openvino.Model, photos: np.ndarray) -> openvino.Model:
        calibrated.append(photos)
        return graph

    monkeypatch.setattr(selection, "quantize", quantize)
    export(folder, pixels, labels, logits=np.zeros((300, 3), np.float32))
    label_of = {photo.tobytes(): int(label) for photo, label in zip(pixels, labels, strict=True)}
    counts = np.bincount([label_of[photo.tobytes()] for photo in calibrated[0]], minlength=3)
    assert counts.sum() == 64
    assert counts.min() >= 10


def test_int8_is_chosen_when_it_is_safe() -> None:
    assert choose({"f32": row(), "bf16": row(), "int8": row()}) == EngineChoice(bf16=True, int8=True)


@pytest.mark.parametrize("int8", [row(change=-0.01), row(flips=0.02), row(num_photos=50)])
def test_int8_is_not_chosen_when_it_may_change_predictions(int8: EngineRow) -> None:
    assert choose({"f32": row(), "bf16": row(), "int8": int8}) == EngineChoice(bf16=True, int8=False)


@pytest.mark.parametrize(
    ("at_the_limit", "beyond"),
    [
        (row(change=-0.003), row(change=-0.0031)),
        (row(flips=0.004), row(flips=0.0041)),
        (row(num_photos=100), row(num_photos=99)),
    ],
)
def test_gate_accepts_its_thresholds_and_nothing_beyond(at_the_limit: EngineRow, beyond: EngineRow) -> None:
    assert choose({"f32": row(), "int8": at_the_limit}).int8
    assert not choose({"f32": row(), "int8": beyond}).int8


def test_bf16_is_rejected_only_by_a_measured_loss() -> None:
    assert choose({"f32": row(), "bf16": row(change=-0.01)}) == EngineChoice(bf16=False)
    assert choose({"f32": row(), "bf16": row(flips=0.02)}) == EngineChoice(bf16=False)
    assert choose({"f32": row()}) == EngineChoice(bf16=True)


def test_expected_flips_match_counted_flips() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 3, (20_000, 5))
    for spread in (0.02, 0.2):
        logits = reference + rng.normal(0, spread, reference.shape)
        counted = (logits.argmax(1) != reference.argmax(1)).mean()
        assert expected_flips(logits, reference) == pytest.approx(counted, rel=0.2)
    assert expected_flips(reference, reference) == 0

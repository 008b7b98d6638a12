"""The accuracy gate: reproducible files, measured engines, and only safe precisions chosen."""

import math
import shutil
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from pathlib import Path

import numpy as np
import openvino
import pytest

from classifier.engine import selection
from classifier.engine.base import EngineChoice
from classifier.engine.selection import CHUNK, EngineReport, EngineRow, choose, export, possible_loss
from classifier.errors import Stopped
from support.servers import drawn_pixels, write_artifact

# Seconds for which an engine's speed is measured.
TIMED_S = 0.02


def row(*, lost: int = 0, gained: int = 0, num_photos: int = 1000) -> EngineRow:
    return EngineRow(
        engine="x",
        images_per_s=100,
        num_photos=num_photos,
        accuracy=0.9,
        accuracy_change=(gained - lost) / num_photos,
        lost=lost,
        gained=gained,
        possible_loss=possible_loss(lost, gained, num_photos),
    )


@dataclass(frozen=True)
class Exported:
    """An artifact that was exported with int8, the photos, the report, and the number of calls of ``check``."""

    folder: Path
    pixels: np.ndarray
    labels: np.ndarray
    report: EngineReport
    num_checks: int


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small artifact, exported on photos of two chunks and a half."""
    folder = write_artifact(tmp_path_factory.mktemp("export") / "model")
    pixels, labels = drawn_pixels(CHUNK * 5 // 2)
    checks: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TIMED_S", TIMED_S)
        report = export(folder, pixels, labels, cpu_engine="int8", check=lambda: checks.append(None))
    return Exported(folder, pixels, labels, report, len(checks))


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TIMED_S", TIMED_S)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_weights_and_photos_give_equal_bytes(exported: Exported, tmp_path: Path) -> None:
    first = files(exported.folder)
    assert {"openvino.xml", "openvino_int8.bin", "engine.json"} <= set(first)
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    export(folder, exported.pixels, exported.labels, cpu_engine="int8")
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
    # One for each chunk of photos, in torch and in every engine that runs here, and three between.
    assert exported.num_checks >= 3 * 2 + 3


def test_report_compares_the_engines(exported: Exported, tmp_path: Path) -> None:
    rows = exported.report.rows
    assert [one.engine for one in rows[:2]] == ["torch fp32", "OpenVINO f32"]
    assert (rows[1].lost, rows[1].gained) == (0, 0)
    assert {one.num_photos for one in rows} == {len(exported.labels)}
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    report = export(folder, exported.pixels, exported.labels)
    assert report.chosen is not None
    # Too few photos for any other engine.
    assert report.chosen.engine == "OpenVINO f32"
    assert report.reasons[0].startswith("f32 is served, the fastest engine that is known to keep the accuracy: ")
    assert report.lines()[1 + len(report.rows) :] == list(report.reasons)
    assert "served on a CPU" in report.lines()[2]


def test_photos_are_measured_until_the_time_is_used_up(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "BUDGET_S", 0.0)
    report = export(shutil.copytree(exported.folder, tmp_path / "model"), exported.pixels, exported.labels)
    assert {one.num_photos for one in report.rows} == {CHUNK}
    assert report.reasons[-1].startswith(f"{CHUNK} of {len(exported.labels)} validation photos")


def test_all_photos_are_read_a_few_at_a_time(exported: Exported, tmp_path: Path) -> None:
    asked: list[np.ndarray] = []

    class Lazy:
        def __getitem__(self, indices: np.ndarray) -> np.ndarray:
            asked.append(indices)
            return exported.pixels[indices]

    export(shutil.copytree(exported.folder, tmp_path / "model"), Lazy(), exported.labels)
    assert max(map(len, asked)) == selection.CALIBRATION_PHOTOS
    assert sorted(np.concatenate(asked[1:])) == list(range(len(exported.labels)))


def test_engine_that_was_asked_for_is_served_whatever_is_measured(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "cpu_has_int8", lambda: False)
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    report = export(folder, exported.pixels[:8], exported.labels[:8], cpu_engine="int8")
    assert EngineChoice.read(folder).int8
    assert (folder / "openvino_int8.xml").exists()
    assert report.reasons == ("int8 is served on CPUs that support it, since cpu_engine=int8; not measured",)
    export(folder, exported.pixels[:8], exported.labels[:8], cpu_engine="fp32")
    assert EngineChoice.read(folder) == EngineChoice(sha256=EngineChoice.read(folder).sha256)
    assert not (folder / "openvino_int8.xml").exists()


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
    monkeypatch.setattr(selection, "cpu_has_int8", lambda: True)
    monkeypatch.setattr(selection, "BUDGET_S", 0.0)
    export(folder, pixels, labels)
    label_of = {photo.tobytes(): int(label) for photo, label in zip(pixels, labels, strict=True)}
    counts = np.bincount([label_of[photo.tobytes()] for photo in calibrated[0]], minlength=3)
    assert counts.sum() == 64
    assert counts.min() >= 10


def test_int8_is_chosen_when_it_is_safe() -> None:
    choice, reasons = choose({"f32": row(), "bf16": row(), "int8": row(lost=5, gained=6)}, "auto")
    assert choice == EngineChoice(bf16=True, int8=True)
    assert reasons == (
        "int8 is served, the fastest engine that is known to keep the accuracy: accuracy +0.10% on 1,000 validation "
        "photos (5 lost, 6 gained), at worst -0.50% at 95 % confidence",
    )


def test_engine_that_may_lose_accuracy_is_not_chosen() -> None:
    int8 = row(lost=4, num_photos=1000)
    choice, reasons = choose({"f32": row(), "bf16": row(), "int8": int8}, "auto")
    assert choice == EngineChoice(bf16=True, int8=False)
    assert reasons[1].startswith("int8 is not served: accuracy -0.40% on 1,000 validation photos (4 lost, 0 gained)")
    assert "at most 0.3% may be lost" in reasons[1]
    few = row(num_photos=100)
    choice, reasons = choose({"f32": row(), "bf16": few, "int8": few}, "auto")
    assert choice == EngineChoice()
    assert reasons[0].startswith("f32 is served")
    assert "only less than 2% would be safe, for which more photos may be needed" in reasons[1]


@pytest.mark.parametrize(
    ("at_the_limit", "beyond"),
    [
        (row(lost=3, num_photos=1000), row(lost=31, num_photos=10_000)),
        (row(num_photos=133), row(num_photos=132)),
        (row(lost=10, gained=10, num_photos=400), row(lost=20, gained=20, num_photos=400)),
    ],
)
def test_gate_accepts_its_thresholds_and_nothing_beyond(at_the_limit: EngineRow, beyond: EngineRow) -> None:
    assert choose({"f32": row(), "int8": at_the_limit}, "auto")[0].int8
    assert not choose({"f32": row(), "int8": beyond}, "auto")[0].int8


def test_engine_that_was_not_measured_is_served_only_if_it_was_asked_for() -> None:
    choice, reasons = choose({"f32": row()}, "auto")
    assert choice == EngineChoice()
    assert reasons[1].startswith("bf16 is not served: not measured")
    assert choose({"f32": row()}, "bf16")[0] == EngineChoice(bf16=True)
    assert choose({"f32": row(), "int8": row(lost=500)}, "int8")[0] == EngineChoice(int8=True)
    assert choose({"f32": row(), "bf16": row(), "int8": row()}, "fp32")[0] == EngineChoice()


@pytest.mark.parametrize(("lose", "gain"), [(0.01, 0.01), (0.03, 0.02), (0.05, 0.0), (0.15, 0.1), (0.3, 0.3)])
@pytest.mark.parametrize("num_photos", [40, 100])
def test_possible_loss_is_exceeded_in_one_case_in_twenty(num_photos: int, lose: float, gain: float) -> None:
    """Exact coverage of the true loss, ``lose - gain``, over all outcomes."""
    covered = 0.0
    for lost, gained in product(range(num_photos + 1), repeat=2):
        same = num_photos - lost - gained
        if same < 0:
            continue
        ways = math.comb(num_photos, lost) * math.comb(num_photos - lost, gained)
        probability = ways * lose**lost * gain**gained * (1 - lose - gain) ** same
        if probability > 1e-9:
            covered += probability * (possible_loss(lost, gained, num_photos) >= lose - gain)
    assert covered > 0.93


def test_possible_loss_shrinks_with_photos_and_grows_with_losses() -> None:
    assert possible_loss(0, 0, 133) == pytest.approx(2.7055 / 135.7055, abs=1e-4)
    limits = [possible_loss(lost, 3, 500) for lost in range(20)]
    assert limits == sorted(limits)
    assert possible_loss(500, 0, 500) == pytest.approx(1)

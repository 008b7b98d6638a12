"""Steps after a training that fail: each is a warning, and the finished training keeps its model."""

import os
import subprocess
from pathlib import Path

import pytest

from classifier.reporting import recording
from classifier.vision import artifact
from support.drawing import write_classes
from support.jobs import Platform

# Python runs sitecustomize before the program. It makes libraries look as if they were not installed.
SITECUSTOMIZE = """
import importlib.metadata
import os
import sys

blocked = os.environ["BLOCKED_LIBRARIES"].split()
find_distribution = importlib.metadata.distribution


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def distribution(name):
    if name in blocked:
        raise importlib.metadata.PackageNotFoundError(name)
    return find_distribution(name)


sys.meta_path.insert(0, Blocker())
importlib.metadata.distribution = distribution
"""


def train_without(platform: Platform, folder: Path, *libraries: str) -> tuple[int, str]:
    """Run ``train`` where libraries are missing; return its exit code and its log."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    process = platform.start(PYTHONPATH=paths, BLOCKED_LIBRARIES=" ".join(libraries))
    try:
        log, _ = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, log


# What a training without a library warns about, and the file that it does not write.
OPTIONAL = {
    "plotly": ("report.html could not be written", "output/data/report.html"),
    "matplotlib": ("a plot could not be written", "output/data/curves.png"),
    "openvino": ("the model could not be converted for serving on a CPU", "model/openvino.xml"),
}


@pytest.mark.slow
@pytest.mark.gate
def test_missing_libraries_cost_warnings_and_no_model(platform: Platform, image_folder: Path, tmp_path: Path) -> None:
    platform.lay_out({"train": image_folder}, {"optimize_for_cpu": "true"})
    # The last two are large, and only the tests use them.
    exit_code, log = train_without(platform, tmp_path / "site", *OPTIONAL, "torchmetrics", "scipy")
    assert exit_code == 0, log
    for library, (warning, missing) in OPTIONAL.items():
        assert f"warning: {warning}; the model is not affected" in log
        assert f"No module named '{library}" in log
        assert not (platform.paths.base / missing).exists()
    assert log.count("warning: ") == len(OPTIONAL), log
    assert not platform.paths.failure.exists()
    _, manifest = artifact.load(platform.paths.model)
    assert "validation:accuracy" in manifest.metrics
    # The other outputs are there.
    written = {path.name for path in platform.paths.output_data.iterdir()}
    assert written >= {"training.json", "history.csv", "metrics.json", "steps.csv", "confusion.csv", "mistakes.json"}


@pytest.mark.parametrize(
    ("function", "warning", "missing"),
    [
        ("write_confusion", "confusion.csv could not be written", "confusion.csv"),
        ("write_classes", "classes.csv could not be written", "classes.csv"),
        ("write_mistakes", "mistakes.json could not be written", "mistakes.json"),
        ("write_history", "HistoryRecorder failed and was removed", "history.csv"),
    ],
)
def test_a_file_that_can_not_be_written_costs_a_warning_and_no_other_file(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, warning: str, missing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(recording, function, fail)
    job = platform.train({"train": image_folder})
    assert (job.exit_code, job.failure) == (0, None)
    assert f"warning: {warning}" in job.log
    assert (job.paths.model / "model.safetensors").is_file()
    written = {path.name for path in job.paths.output_data.iterdir()}
    assert missing not in written
    assert written >= {"training.json", "steps.csv", "confusion.csv", "classes.csv", "mistakes.json"} - {missing}


def test_a_recorder_that_can_not_begin_costs_a_warning_and_no_model(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder})
    (platform.paths.output_data / "steps.csv").mkdir(parents=True)
    job = platform.run()
    assert (job.exit_code, job.failure) == (0, None)
    assert "warning: StepRecorder failed and was removed; the training is not affected" in job.log
    assert (job.paths.model / "model.safetensors").is_file()
    assert (job.paths.output_data / "history.csv").is_file()


def test_the_predictions_of_the_test_channel_are_recorded(platform: Platform, tmp_path: Path) -> None:
    channels = {name: write_classes(tmp_path / name, seed=seed) for seed, name in enumerate(("train", "test"))}
    write_classes(tmp_path / "more", classes=("disc",), photos_per_class=3, seed=9)
    for number in range(3):
        (tmp_path / "more" / "disc" / f"{number}.jpg").rename(channels["test"] / "disc" / f"more{number}.jpg")
    job = platform.train(channels)
    lines = (job.paths.output_data / "confusion.csv").read_text(encoding="utf-8").splitlines()
    counts = {line.split(",")[0]: sum(map(int, line.split(",")[1:])) for line in lines[1:]}
    assert counts == {"cross": 8, "disc": 11, "square": 8}
    mistakes = (job.paths.output_data / "mistakes.json").read_text(encoding="utf-8")
    assert '"channel": "test"' in mistakes
    assert '"num_photos": 27' in mistakes

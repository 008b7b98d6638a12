"""SIGTERM, which the platform sends 120 s before SIGKILL: the job ends in time with the best model so far."""

import signal
import subprocess
from pathlib import Path

import pytest

from classifier.vision import artifact
from support.drawing import write_classes
from support.jobs import Platform

pytestmark = [pytest.mark.slow, pytest.mark.gate]


def read_until(process: subprocess.Popen[str], prefix: str) -> str:
    """Return the log up to the first line with this prefix."""
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(prefix):
            return "".join(seen)
    raise AssertionError(f"no line begins with {prefix!r}:\n{''.join(seen)}")


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    log, _ = process.communicate(timeout=30)
    return process.returncode, log


def test_a_stop_after_an_epoch_keeps_the_best_model(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder}, {"epochs": "1000"})
    platform.write_config("checkpointconfig.json", '{"LocalPath": "/opt/ml/checkpoints"}')
    process = platform.start()
    read_until(process, "epoch   2/1000")
    exit_code, log = stop(process)
    assert exit_code == 0
    assert "stopped     by SIGTERM; the best model so far is kept" in log
    assert not platform.paths.failure.exists()
    _, manifest = artifact.load(platform.paths.model)
    assert manifest.metrics.keys() >= {"train:loss", "validation:accuracy"}
    assert (platform.paths.output_data / "curves.png").exists()
    assert any((platform.paths.base / "checkpoints").glob("checkpoint-*.safetensors"))


def test_a_stop_in_the_first_epoch_saves_the_current_weights(platform: Platform, tmp_path: Path) -> None:
    train = write_classes(tmp_path / "train", photos_per_class=300)
    platform.lay_out({"train": train}, {"model": "resnet18", "image_size": "128", "batch_size": "2"})
    process = platform.start()
    read_until(process, "photos")
    exit_code, log = stop(process)
    assert (exit_code, platform.paths.failure.exists()) == (0, False)
    assert "epoch   1" not in log
    _, manifest = artifact.load(platform.paths.model)
    assert manifest.metrics == {}


def test_a_stop_before_the_first_step_is_not_a_failure(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder}, {"epochs": "1000"})
    process = platform.start()
    read_until(process, "device")
    exit_code, log = stop(process, signal.SIGINT)
    assert (exit_code, platform.paths.failure.exists()) == (0, False)
    assert "stopped     by SIGINT" in log

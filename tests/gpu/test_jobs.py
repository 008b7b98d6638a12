"""Whole trainings on a GPU: `train` in processes of its own."""

import csv
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from shutil import rmtree, which

import pytest
import torch

from classifier.profiling.system import open_gpus
from launch.local.opt_ml import lay_out
from support.gpu import (
    DETERMINISTIC,
    Figures,
    Program,
    Target,
    finish,
    run_train,
    start_train,
    stop,
    wait_for,
)

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

JOB = {
    "model": "mobilenet_v2",
    "pretrained": "true",
    "batch_size": "64",
    "lr": "0.002",
    "epochs": "3",
    "optimizer": "adamw",
    "scheduler": "onecycle",
    "augmentation": "standard",
    "optimize_for_cpu": "false",
    "seed": "1",
}
# On a CPU: the same, smaller.
SMALL = {"image_size": "32", "epochs": "2"}
CHECKPOINTS = {"checkpointconfig": {"LocalPath": "/opt/ml/checkpoints"}}


def job(target: Target, **changes: str) -> dict[str, str]:
    return {**JOB, **target.size({}, SMALL), **changes}


@pytest.fixture(scope="module")
def profiled(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A training with the profiler, in the format that suits the device."""
    folder = tmp_path_factory.mktemp("profiled") / "opt_ml"
    return run_train(folder, target.channels(), job(target, profile="true"))


@pytest.fixture(scope="module")
def plain(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The same training without the profiler."""
    folder = tmp_path_factory.mktemp("plain") / "opt_ml"
    return run_train(folder, target.channels(), job(target))


def best_epoch_s(program: Program) -> float:
    """Return the seconds of the fastest epoch."""
    with (program.paths.output_data / "history.csv").open(encoding="utf-8") as file:
        return min(float(row["seconds"]) for row in csv.DictReader(file))


# 1. A training from start to end.


def test_train_ends_well_and_writes_its_page(target: Target, profiled: Program, figures: Figures) -> None:
    assert "warning" not in profiled.log, profiled.log
    assert (profiled.paths.output_data / "report.html").stat().st_size > 100_000
    assert (profiled.paths.model / "model.safetensors").stat().st_size > 1 << 20
    device = torch.cuda.get_device_name() if target.on_gpu else "CPU"
    assert f"device      {device}" in profiled.log
    figures.record("train accuracy on test", profiled.metrics["test:accuracy"])
    if target.on_gpu:
        assert profiled.metrics["test:accuracy"] > 0.5


# 3. Number formats.


@pytest.fixture(scope="module")
def accuracies(target: Target, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Accuracy on the test photos of heads that were trained on the CPU in fp32, and on the device in each format."""
    base = tmp_path_factory.mktemp("formats")
    changes = {"freeze": "backbone", "augmentation": "none", "epochs": target.size("10", "2"), "lr": "0.003"}
    formats = ["fp32", "bf16", *(["fp16"] if target.on_gpu else [])]
    runs = {"cpu": ("fp32", {"CUDA_VISIBLE_DEVICES": ""}), **{name: (name, {}) for name in formats}}
    found = {}
    for label, (precision, environment) in runs.items():
        folder = base / label
        lay_out(folder, target.channels(), job(target, precision=precision, **changes))
        program = finish(start_train(folder, None, **environment), folder)
        assert program.exit_code == 0, program.log
        found[label] = program.metrics["test:accuracy"]
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_accuracy_is_within_a_point_of_the_cpus(
    target: Target, accuracies: dict[str, float], figures: Figures, precision: str
) -> None:
    if precision not in accuracies:
        pytest.skip("fp16 needs a CUDA device")
    figures.record(f"accuracy {precision}", accuracies[precision])
    figures.record("accuracy cpu", accuracies["cpu"])
    assert abs(accuracies[precision] - accuracies["cpu"]) <= target.size(0.01, 0.05)


# 6. Memory.


def test_batch_that_does_not_fit_is_told_as_such(gpu: Target, tmp_path: Path) -> None:
    photos = sorted((gpu.photos / "train").glob("*/*.jpg"))
    for number in range(4096 + 64):
        source = photos[number % len(photos)]
        link = tmp_path / "train" / source.parent.name / f"{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    base = tmp_path / "opt_ml"
    channels = {"train": tmp_path / "train", "validation": gpu.photos / "validation"}
    changes = {"model": "resnet50", "pretrained": "false", "batch_size": "4096", "image_size": "1024", "epochs": "1"}
    lay_out(base, channels, {**JOB, **changes})
    program = finish(start_train(base), base)
    assert program.exit_code == 1, program.log
    failure = program.paths.failure.read_text(encoding="utf-8")
    assert failure.startswith("ConfigError: the GPU's memory is too small for batch_size=4096 of image_size=1024"), (
        failure
    )
    assert "Traceback" not in failure


# 7. The profiler.


def test_phases_explain_the_wall_time(target: Target, profiled: Program, figures: Figures) -> None:
    phases = profiled.profile["phases"]
    assert isinstance(phases, dict)
    spent = phases["train"]
    total = sum(spent.values())
    figures.record("profiler: share of unexplained time", spent["other"] / total)
    assert spent["other"] <= target.size(0.05, 0.3) * total


def test_profiler_costs_at_most_three_percent(
    target: Target, profiled: Program, plain: Program, figures: Figures
) -> None:
    ratio = best_epoch_s(plain) / best_epoch_s(profiled)
    figures.record("speed with the profiler ÷ without", ratio)
    assert ratio >= target.size(0.97, 0.3)


def test_nvml_agrees_with_nvidia_smi(gpu: Target) -> None:
    program = which("nvidia-smi")
    if program is None:
        pytest.skip("no nvidia-smi")
    held = torch.empty(4 << 30, dtype=torch.uint8, device=gpu.device)
    gpus = open_gpus()
    assert gpus is not None
    query = [program, "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    seen = gpus.read()
    assert len(lines) == len(seen)
    for line, (_, full) in zip(lines, seen, strict=True):
        used, total = (float(part) for part in line.split(","))
        # NVML's counts the driver's own reserve as used.
        assert full == pytest.approx(100 * used / total, abs=2)
    del held


# 9. The same again, and after a kill.


def digest(base: Path) -> str:
    return hashlib.sha256((base / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_deterministic_trainings_are_equal_also_after_a_kill(target: Target, tmp_path: Path) -> None:
    # On a CPU, too, several steps an epoch.
    size = target.size("64", "8")
    parameters = job(target, augmentation="strong", checkpoint_interval_s="0", batch_size=size)
    environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    bases = [tmp_path / name for name in ("first", "second", "killed")]
    for base in bases:
        lay_out(base, target.channels(), parameters, config=CHECKPOINTS)
    for base in bases[:2]:
        program = finish(start_train(base, DETERMINISTIC, **environment), base)
        assert program.exit_code == 0, program.log
    assert digest(bases[0]) == digest(bases[1])

    killed, checkpoints = bases[2], bases[2] / "checkpoints"
    process = start_train(killed, DETERMINISTIC, **environment)
    while not any(checkpoints.glob("checkpoint-0002-*[1-9].safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # As on Spot capacity: only the checkpoints come back.
    for name in ("model", "output"):
        rmtree(killed / name)
    program = finish(start_train(killed, DETERMINISTIC, **environment), killed)
    assert program.exit_code == 0, program.log
    assert "resumed     at epoch" in program.log
    assert digest(killed) == digest(bases[0])


# 11. A stop.


def test_stop_ends_within_thirty_seconds(target: Target, tmp_path: Path, figures: Figures) -> None:
    base = tmp_path / "opt_ml"
    lay_out(base, target.channels(), job(target, epochs="200", batch_size="16"), config=CHECKPOINTS)
    process = start_train(base)
    wait_for(process, "epoch   1/200")
    time.sleep(1)
    seconds = stop(process)
    log = process.stdout.read() if process.stdout else ""
    if process.stdout:
        process.stdout.close()
    figures.record("seconds from SIGTERM to the end", seconds)
    assert process.returncode == 0, log
    assert seconds < 30
    assert "stopped     by" in log
    assert (base / "model" / "model.safetensors").exists()
    assert os.listdir(base / "checkpoints")  # noqa: PTH208 - any entry

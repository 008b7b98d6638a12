"""``tune.py --local`` with real trainings, from a ranges file to the best hyperparameters."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dataset.sample_data import write_digits
from launch.local.processes import running_pid
from launch.tuning.trials import COLUMNS
from support.commands import run_script
from support.jobs import TINY
from support.tune_command import ROOT, read_until, start_tune, tune

RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "lr", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
    ],
    "CategoricalParameterRanges": [{"Name": "batch_size", "Values": ["32", "64"]}],
}


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(RANGES), encoding="utf-8")
    return path


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def train_local(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "local_test" / "train_local.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_results_are_accepted_by_the_next_commands(ranges: Path, image_folder: Path, tmp_path: Path) -> None:
    fixed = {name: value for name, value in TINY.items() if name != "batch_size"}
    out = tmp_path / "out"
    arguments = [ranges, "--local", "--data", image_folder, "--output", out, "--folder", tmp_path / "sagemaker"]
    done = tune(*arguments, "--jobs", 2, *(f"{name}={value}" for name, value in fixed.items()))
    assert done.returncode == 0, done.stderr
    assert "ended       all 2 trials are done" in done.stdout
    rows = read_table(out)
    assert [row["TrainingJobStatus"] for row in rows] == ["Completed"] * 2
    assert tuple(rows[0]) == ("lr", "batch_size", *COLUMNS)
    best = json.loads((out / "best_hyperparameters.json").read_text())
    assert best == {**fixed, "lr": best["lr"], "batch_size": best["batch_size"]}
    log = (tmp_path / "sagemaker" / "training-jobs" / rows[0]["TrainingJobName"] / "logs" / "algo-1.log").read_text()
    assert "CPU, 1 thread" in log, "each trial gets its share of the cores"
    command = [sys.executable, ROOT / "scripts" / "train.py", "--local", "--data", image_folder, "--dry-run"]
    command += ["--hyperparameters", out / "best_hyperparameters.json"]
    taken = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(taken.stdout)["HyperParameters"] == best
    trained = train_local(
        "--data", image_folder, "--hyperparameters", out / "best_hyperparameters.json", "--output", tmp_path / "opt_ml"
    )
    assert trained.returncode == 0, trained.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_until_it_is_stopped(ranges: Path, image_folder: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "out", ("--local", "--folder", tmp_path / "sagemaker")
    arguments = [ranges, *folder, "--data", image_folder, "--output", out, "--name", "dogs"]
    fixed = ("model=squeezenet1_1", "pretrained=false", "epochs=50")
    with closing(start_tune(*arguments, "--jobs", 4, *fixed)) as process:
        read_until(process, "running", 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "tune: stopped watching; the job keeps running: this machine" in err
    assert f"scripts/tune.py --stop dogs --local --folder {tmp_path / 'sagemaker'}\n" in err
    again = tune(*arguments, "--jobs", 4, *fixed)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "already exists, and is InProgress: watch it, or stop it first" in again.stderr
    assert "tuning    dogs  InProgress this machine" in run_teardown(*folder, "--dry-run")
    assert "stopping  tuning dogs" in run_teardown(*folder, "--yes")
    watched = tune("--watch", "dogs", *folder)
    assert "ended       on request" in watched.stdout
    assert "tuning job dogs: no trial has completed" in watched.stderr
    assert read_table(out) == []
    for record in (tmp_path / "sagemaker" / "training-jobs").glob("*/record.json"):
        assert json.loads(record.read_text())["TrainingJobStatus"] == "Stopped"


def run_teardown(*arguments: object) -> str:
    done = run_script("teardown", list(map(str, arguments)))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_twenty_trials_on_the_digits_killed_halfway_beat_the_defaults(ranges: Path, tmp_path: Path) -> None:
    digits, out = tmp_path / "digits", tmp_path / "out"
    write_digits(digits)
    fixed = ["pretrained=false", "image_size=32", "epochs=1", "augmentation=none", "scheduler=onecycle"]
    arguments = [ranges, "--local", "--data", digits, "--output", out, "--folder", tmp_path / "sagemaker"]
    arguments += ["--jobs", 20, "--parallel", 2, "--name", "digits", *fixed]
    with closing(start_tune(*arguments)) as command:
        read_until(command, "  done  ", 10)
        supervisor = running_pid(tmp_path / "sagemaker" / "hyper-parameter-tuning-jobs" / "digits" / "supervisor.lock")
        assert supervisor
        os.kill(supervisor, signal.SIGKILL)
        _, errors = command.communicate()
    assert command.returncode == 1
    assert "the process that ran this job was killed; the same command resumes it" in errors
    again = tune(*arguments)
    assert again.returncode == 0, again.stderr
    # The trials that ran meanwhile may have ended before the kill.
    assert re.match(r"resuming    1[0-2] of 20 trials are done\n", again.stdout)
    rows = read_table(out)
    assert [row["TrainingJobStatus"] for row in rows] == ["Completed"] * 20
    settings = {"best": ["--hyperparameters", out / "best_hyperparameters.json"], "defaults": fixed}
    accuracy: dict[str, float] = {}
    for name, given in settings.items():
        done = train_local("--data", digits, "--output", tmp_path / name, "optimize_for_cpu=false", *given)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / name / "output" / "data" / "metrics.json").read_text())
        accuracy[name] = metrics["test:accuracy"]
    print(accuracy)
    assert accuracy["best"] >= accuracy["defaults"]


@pytest.mark.slow
def test_mistakes_are_reported_before_anything_is_trained(ranges: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(image_folder)
    cases = {
        ("--data", str(tmp_path / "none")): "/none: there is no such folder",
        ("--data", str(image_folder), "lr=0.1"): "lr is given as a fixed hyperparameter too",
        ("--data", str(image_folder), "epochs=0"): "hyperparameter epochs='0': should be greater than or equal to 1",
        ("--data", str(image_folder), "--strategy", "grid"): "lr is a range: list its values under Categorical",
        ("--data", str(image_folder), "--objective", "test:f1"): "needs a channel 'test', and there is none",
        ("--data", str(image_folder), "--warm-start", "none"): "could not find hyper-parameter-tuning-job 'none'",
        ("--data", str(image_folder), "--output", "s3://bucket/x"): "with --local it has to be a folder",
        ("--watch", "other"): "tuning job other: ValidationException: could not find",
        ("--stop", "other"): "tuning job other: ValidationException: could not find",
    }
    for arguments, message in cases.items():
        done = tune(ranges, "--local", "--folder", tmp_path / "sagemaker", "--results", tmp_path / "out", *arguments)
        assert done.returncode == 1, done.stdout
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "sagemaker").exists()

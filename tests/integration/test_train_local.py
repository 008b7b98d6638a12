"""``local_test/train_local.sh``: from a folder of photos to a trained model."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.commands import run_script
from support.drawing import write_classes
from support.jobs import TINY

ROOT = Path(__file__).resolve().parents[2]
TINY_ARGUMENTS = [f"{name}={value}" for name, value in TINY.items()]


def train_local(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "local_test" / "train_local.sh", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def earlier_training(output: Path) -> Path:
    """A finished training, as an earlier command left it."""
    for name, content in (("input/config/hyperparameters.json", "{}"), ("model/model.json", "{}")):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(content, encoding="utf-8")
    (output / "model" / "model.safetensors").write_bytes(b"weights")
    return output


@pytest.mark.slow
@pytest.mark.gate
def test_class_folders_become_a_model(image_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "hyperparameters.json"
    file.write_text(json.dumps({"epochs": 3, "lr": "0.01"}))
    output = earlier_training(tmp_path / "opt_ml")
    done = train_local(
        "--data", image_folder, "--hyperparameters", file, "--output", output, *TINY_ARGUMENTS, "epochs=2"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bar without a terminal"
    assert "epoch   2/2  train:loss=" in done.stdout, "the command line overrides the file"
    assert f"artifact    {output}.part/model\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"renamed     {output}.part to {output}: see {output}/output/")
    written = json.loads((output / "input" / "config" / "hyperparameters.json").read_text())
    assert written == {**TINY, "epochs": "2", "lr": "0.01"}
    assert (output / "model" / "model.safetensors").stat().st_size > 1000
    assert [path.name for path in tmp_path.glob("opt_ml*")] == ["opt_ml"]
    arguments = ["--data", image_folder, "--hyperparameters", file, "--output", output, *TINY_ARGUMENTS, "epochs=3"]
    longer = train_local(*arguments, "--resume")
    assert longer.returncode == 0, longer.stderr
    assert "resumed     at epoch 3, step 0 of 3, from checkpoint-0003-00000000.safetensors" in longer.stdout
    assert "epoch   2/3" not in longer.stdout
    assert "epoch   3/3" in longer.stdout


@pytest.mark.slow
def test_channel_folders_are_told_apart_from_class_folders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("train", "test"):
        write_classes(data / name, photos_per_class=5)
    done = train_local("--data", data, "--output", tmp_path / "opt_ml", *TINY_ARGUMENTS)
    assert "train 12 · validation 3 · test 15 in 3 classes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing"], "missing: there is no such folder"),
        (["=0.1"], "'=0.1' is not of the form KEY=VALUE"),
        (["model=resnet500"], "unknown model 'resnet500' (did you mean 'resnet50'?)"),
        (["lr=100"], "hyperparameter lr='100': should be less than or equal to 10"),
        (["--hyperparameters", "missing.json"], "missing.json: No such file or directory"),
        (["--channel", "pretrained"], "'pretrained' is not of the form --channel NAME=DIR"),
        (["--channel", "pretrained=missing"], "channel 'pretrained': there is no folder missing"),
        (["--output", str(ROOT)], "which would be lost: choose another folder"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    image_folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    output = earlier_training(tmp_path / "opt_ml")
    done = run_script("train_local", ["--data", str(image_folder), "--output", str(output), *arguments])
    assert done.returncode == 1
    assert (output / "model" / "model.safetensors").read_bytes() == b"weights"
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("train_local: ")
    assert message in done.stderr


def test_a_training_that_fails_leaves_the_last_model_as_it_was(image_folder: Path, tmp_path: Path) -> None:
    for photo in image_folder.glob("*/*"):
        photo.write_bytes(b"no photo")
    output = earlier_training(tmp_path / "opt_ml")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    done = run_script("train_local", ["--data", str(image_folder), "--output", str(output), *TINY_ARGUMENTS])
    assert done.returncode == 1
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    failed, kept = done.stderr.splitlines()
    assert failed.endswith(f"all are listed in {output}.part/output/data/bad_images.csv")
    assert kept == f"train_local: {output} is unchanged; the files of this training are in {output}.part"
    assert (output.with_name("opt_ml.part") / "output" / "data" / "bad_images.csv").is_file()


def test_shell_script_passes_on_arguments_and_exit_code(image_folder: Path, tmp_path: Path) -> None:
    done = train_local("--data", image_folder, "--output", tmp_path / "opt_ml", "=0.1")
    assert (done.returncode, done.stderr) == (1, "train_local: '=0.1' is not of the form KEY=VALUE\n")


@pytest.mark.slow
def test_without_arguments_it_trains_on_digits(tmp_path: Path) -> None:
    done = train_local("--output", tmp_path / "opt_ml", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "opt_ml" / "output" / "data" / "metrics.json").read_text())
    assert metrics["test:accuracy"] >= 0.97

"""The whole workflow on one machine: prepare, upload, tune, train, deploy, predict, batch transform, tear down.

Each step is the command that a user types, with the output of the step before as its arguments. S3 is moto; training
and server are the image's programs.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.drawing import write_classes

pytestmark = pytest.mark.gate

TINY = ["model=resnet18", "pretrained=false", "image_size=32", "epochs=6", "batch_size=16"]
RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "lr", "MinValue": "0.002", "MaxValue": "0.006", "ScalingType": "Logarithmic"},
    ]
}
FROZEN = ["model=mobilenet_v2", "freeze=backbone", "augmentation=none", "epochs=4", "batch_size=32"]


@pytest.fixture(autouse=True)
def tear_down(shell: Any) -> Iterator[None]:
    """Stop the server of a test that failed halfway."""
    yield
    shell.run("teardown", "--local", "--yes")


def run_workflow(shell: Any, bucket: str, source: Path, training: list[str], **more: list[str]) -> float:
    """Run all commands; return the share of test photos that the endpoint labelled correctly."""
    local = ["--local"]
    prepared = shell.folder / "prepared"
    _run(shell, "prepare_data", str(source), str(prepared), "--jobs", "1", *more.get("preparing", []))
    uploaded = _run(shell, "upload_data", str(prepared), f"s3://{bucket}/prepared")
    channels = [part for line in uploaded.splitlines() for part in ("--channel", line)]
    best = _tune(shell, [*local, *channels, *training])
    tuned = ["--hyperparameters", str(best), "optimize_for_cpu=false"]
    trained = _run(shell, "train", *local, "--name", "workflow", *channels, *_options(training), *tuned)
    assert re.search(r"^metric      test:accuracy=", trained, flags=re.MULTILINE)
    assert (shell.folder / "sagemaker" / "reports" / "workflow" / "metrics.json").is_file()
    _run(shell, "deploy", _found(r"^artifact    (file://.*)$", trained), *local)
    predicted = _run(shell, "predict", *local, "image-classifier", str(prepared / "test"), "--num", "30")
    with Image.open(shell.folder / "predictions.png") as grid:
        assert grid.width > 200
    folder = sorted((prepared / "test").iterdir())[0]
    _run(shell, "batch_transform", *local, "workflow", str(folder), "--output", str(shell.folder / "answers"))
    assert len(list((shell.folder / "answers").iterdir())) == len(list(folder.iterdir()))
    assert "removed   endpoint image-classifier" in _run(shell, "teardown", *local, "--yes")
    assert _run(shell, "teardown", *local) == "nothing is left\n"
    return float(_found(r"^correct .*\(([0-9.]+)%\)$", predicted)) / 100


def _tune(shell: Any, arguments: list[str]) -> Path:
    """Run two trials in parallel; return the file of the best hyperparameters."""
    ranges, results = shell.folder / "ranges.json", shell.folder / "tuned"
    ranges.write_text(json.dumps(RANGES))
    _run(shell, "tune", str(ranges), "--jobs", "2", "--parallel", "2", "--results", str(results), *arguments)
    return results / "best_hyperparameters.json"


def _options(training: list[str]) -> list[str]:
    """Return the arguments that are no hyperparameters, which come from the tuning's file."""
    return [one for place, one in enumerate(training) if one == "--channel" or training[place - 1] == "--channel"]


def _run(shell: Any, script: str, *arguments: str) -> str:
    done = shell.run(script, *arguments)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, flags=re.MULTILINE)
    assert match, text
    return match[1]


@pytest.mark.slow
def test_whole_workflow_on_drawn_photos(shell: Any, bucket: str) -> None:
    source = write_classes(shell.folder / "photos", photos_per_class=40)
    assert run_workflow(shell, bucket, source, TINY) > 0.9


@pytest.mark.slow
def test_whole_workflow_on_clothing(shell: Any, bucket: str, clothing_photos: Path, imagenet_weights: Path) -> None:
    # Without the other files beside the photos.
    for name in ("train", "validation", "test"):
        shutil.copytree(clothing_photos / name, shell.folder / "clothing" / name)
    pretrained = ["--channel", f"pretrained={imagenet_weights}"]
    few = ["--max-per-class", "60", "--longer-side", "320"]
    assert run_workflow(shell, bucket, shell.folder / "clothing", [*pretrained, *FROZEN], preparing=few) > 0.75

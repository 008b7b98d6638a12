"""Example ranges: each is valid, and each command of their README builds a valid request."""

import json
import re
import shlex
from pathlib import Path

import pytest

from classifier.contract.hyperparameters import Hyperparameters
from launch.tuning.ranges import read_ranges
from support.tune_command import ROOT, tune

EXAMPLES = ROOT / "scripts" / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/ranges.json"))
BLOCKS = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_ranges_and_hyperparameters_are_valid_together(folder: Path) -> None:
    file = folder / "hyperparameters.json"
    fixed = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    Hyperparameters.parse(fixed)
    assert all(isinstance(value, str) for value in fixed.values())
    read_ranges(folder / "ranges.json", fixed)


def test_every_folder_has_a_command_in_the_readme() -> None:
    assert len(BLOCKS) == len(FOLDERS)
    for folder in FOLDERS:
        assert any(f"scripts/examples/{folder.name}/ranges.json" in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("examples/")[1].split("/")[0])
def test_the_readmes_commands_build_requests(block: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, script, *arguments = shlex.split(block.replace("\\\n", " "))
    assert (program, script) == (".venv/bin/python", "scripts/tune.py")
    monkeypatch.chdir(ROOT)
    photos = image_folder.parent
    (photos / "test").symlink_to(image_folder)
    done = tune(*(str(photos) if text == "photos" else text for text in arguments), "--dry-run")
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert request["TrainingJobDefinition"]["StaticHyperParameters"]
    folder = Path(arguments[0]).parent.name
    assert request["HyperParameterTuningJobName"] == folder.replace("_", "-")[:18]

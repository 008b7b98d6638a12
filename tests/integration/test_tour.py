"""The README tour: every command of README.md, as written and in order, in a fresh clone.

The photos are drawn and the weights are random. The commands of "On AWS" are in aws/test_readme_block.py.
"""

import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.drawing import write_classes
from support.readme import README, Command, clone_project, commands
from support.servers import free_port

# Commands that are not run here, and what runs them.
ELSEWHERE = {
    "make test": "includes this test",
    "docker/build.sh": "tests/docker",
    "image-classifier": "tests/docker",
    "make test-docker": "tests/docker",
}
AWS_SECTION = "On AWS"
WEIGHTS = ("resnet18", "resnet50", "mobilenet_v2")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit, with the photos and weights that the README mentions."""
    project = tmp_path_factory.mktemp("newcomer") / "project"
    clone_project(project)
    photos = write_classes(project / "photos", photos_per_class=16, size=(96, 80))
    with zipfile.ZipFile(project / "dogImages.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos))
    _save_weights(project.parent / "torch" / "hub" / "checkpoints", project / "weights")
    return project


def _save_weights(hub: Path, channel: Path) -> None:
    """Save random weights under torchvision's file names: a hub cache, and a channel."""
    import torch  # noqa: PLC0415
    from torchvision.models import get_model, get_model_weights  # noqa: PLC0415

    hub.mkdir(parents=True)
    channel.mkdir()
    for name in WEIGHTS:
        for weights in get_model_weights(name):
            torch.save(get_model(name).state_dict(), hub / weights.url.rpartition("/")[2])
    torch.save(get_model("mobilenet_v2").state_dict(), channel / "mobilenet_v2.pth")


@pytest.fixture(scope="module")
def environment(clone: Path) -> Mapping[str, str]:
    return {
        **os.environ,
        "PORT": str(free_port()),
        "SERVE_METRICS_PORT": "0",
        "PYTHONPATH": str(clone / "container"),
        "TORCH_HOME": str(clone.parent / "torch"),
    }


def _tour() -> Iterator[Command]:
    for command in commands(README.read_text(encoding="utf-8")):
        typed = command.text.partition("#")[0]
        if command.section != AWS_SECTION and not any(part in typed for part in ELSEWHERE):
            yield command


def test_tour_covers_every_section() -> None:
    sections = {command.section for command in _tour()}
    assert {"Quick start", "Prepare your photos", "Train", "Debug and profile", "Serve", "Tune"} <= sections


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(2400)  # ten trials and six trainings: ten minutes on two quiet cores
def test_every_command_of_the_readme_succeeds(clone: Path, environment: Mapping[str, str]) -> None:
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for command in _tour():
            if "serve_local.sh" in command.text:
                servers.append(_start(command, clone, environment))
            else:
                _run(command, clone, environment, tries=60 if "predict.sh" in command.text else 1)
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    outputs = ["prepared/report/samples.jpg", "local_test/opt_ml/output/data/report.html", "answers"]
    assert [name for name in outputs if not (clone / name).exists()] == []


def _start(command: Command, clone: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = command.text.partition("#")[0].split()
    return subprocess.Popen(words, cwd=clone, env=environment, stdout=subprocess.DEVNULL)


def _run(command: Command, clone: Path, environment: Mapping[str, str], *, tries: int) -> None:
    text = command.text.partition("#")[0].strip()
    ran = _bash(text, clone, environment)
    while ran.returncode and (tries := tries - 1):
        time.sleep(1)
        ran = _bash(text, clone, environment)
    assert ran.returncode == 0, f"{text}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"


def _bash(text: str, clone: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text], cwd=clone, env=environment, input="y\n", capture_output=True, text=True, check=False
    )

"""The README tour: every command of README.md, as written and in order, in a fresh clone.

The photos are drawn and the weights are random. Most commands of "On AWS" run with ``--dry-run``, since no server but
AWS's own implements all of their operations; the tests in aws/ and tuning/ send what moto supports.
"""

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest

from support.drawing import write_classes
from support.moto import moto_server
from support.readme import README, ROOT, Command, commands
from support.servers import free_port

# Commands that are not run here, and what runs them.
ELSEWHERE = {
    "make test": "includes this test",
    "docker build": "tests/docker",
    "image-classifier": "tests/docker",
    "make test-docker": "tests/docker",
    "build_and_push.sh": "tests/integration/aws",
}
AWS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)
# Arguments added to the commands of "On AWS", by script; all others get --dry-run.
ADDED = {"upload_data.py": "", "train.py": "--no-wait"}
WEIGHTS = ("resnet18", "resnet50", "mobilenet_v2")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit, with the photos and weights that the README mentions."""
    project = tmp_path_factory.mktemp("newcomer") / "project"
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    (project / ".venv").symlink_to(ROOT / ".venv")
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
def endpoint() -> Iterator[str]:
    """URL of a moto server with the bucket and the role that the README names."""
    with moto_server(free_port()) as url:
        session = boto3.Session("none", "none", region_name="us-east-1")
        s3 = session.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="my-bucket")
        # moto's training jobs write none.
        s3.put_object(Bucket="my-bucket", Key="models/dogs-1/output/model.tar.gz", Body=b"")
        session.client("iam", endpoint_url=url).create_role(RoleName="SageMakerRole", AssumeRolePolicyDocument=TRUST)
        yield url


@pytest.fixture(scope="module")
def environment(clone: Path, endpoint: str) -> Mapping[str, str]:
    return {
        **os.environ,
        "PORT": str(free_port()),
        "SERVE_METRICS_PORT": "0",
        "PYTHONPATH": str(clone / "container"),
        "TORCH_HOME": str(clone.parent / "torch"),
        **AWS,
        "AWS_ENDPOINT_URL": endpoint,
        "IMAGE_URI": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:" + "0" * 64,
    }


def _tour() -> Iterator[Command]:
    for command in commands(README.read_text(encoding="utf-8")):
        typed = command.text.partition("#")[0]
        if not any(part in typed for part in ELSEWHERE):
            yield command


def test_tour_covers_every_section() -> None:
    sections = {command.section for command in _tour()}
    assert {"Quick start", "Prepare your photos", "Train", "Debug and profile", "Serve", "Tune", "On AWS"} <= sections


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(2400)  # ten trials and six trainings: ten minutes on two quiet cores
def test_every_command_of_the_readme_succeeds(clone: Path, environment: Mapping[str, str]) -> None:
    environment = dict(environment)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for command in _tour():
            if command.text.startswith("export "):
                name, _, value = command.text.removeprefix("export ").partition("=")
                environment[name] = value
            elif "serve_local.sh" in command.text:
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
    typed = command.text.partition("#")[0].strip()
    text = f"{typed} {_added(typed)}" if command.section == "On AWS" else typed
    ran = _bash(text, clone, environment)
    while ran.returncode and (tries := tries - 1):
        time.sleep(1)
        ran = _bash(text, clone, environment)
    assert ran.returncode == 0, f"{text}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"


def _added(typed: str) -> str:
    return next((added for script, added in ADDED.items() if script in typed), "--dry-run")


def _bash(text: str, clone: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text], cwd=clone, env=environment, input="y\n", capture_output=True, text=True, check=False
    )

"""Fixtures that run the commands as processes against moto over HTTP, with scripted errors."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.account import check_live
from support.cloud_script import Cloud, aws_environment, scripted_cloud
from support.commands import Command, run_script, start_script
from support.fake_docker import DOCKER, write_manifest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
ROOT = Path(__file__).resolve().parents[3]
ROLE = "arn:aws:iam::123456789012:role/SageMaker"


@dataclass
class Shell:
    """Runs commands of ``scripts/`` in a folder of the test.

    Commands that :meth:`start` leaves running are killed when the test ends.
    """

    folder: Path
    environment: dict[str, str]
    cloud: Cloud
    clients: list[Any] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        _, _, *given = self.command(script, *arguments)
        done = run_script(script, given, folder=self.folder, environment={**self.environment, **environment})
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, script: str, *arguments: str) -> Command:
        """Start a command without waiting for its end."""
        _, _, *given = self.command(script, *arguments)
        command = start_script(script, given, folder=self.folder, environment=self.environment)
        self.commands.append(command)
        return command

    def interrupt(self, script: str, until: str, *arguments: str) -> tuple[int, str]:
        """Start a command and press Ctrl-C after a line that begins with ``until``.

        Returns:
            The exit code and standard error.
        """
        command = self.start(script, *arguments)
        for line in command.stdout:
            if line.startswith(until):
                break
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate()
        assert command.returncode is not None
        assert "Traceback" not in errors
        return command.returncode, errors

    def close(self) -> None:
        """Close the clients, and kill what is still running."""
        for client in self.clients:
            client.close()
        for command in self.commands:
            command.close()

    def command(self, script: str, *arguments: str) -> list[str]:
        # Keeps jobs and reports out of the checkout.
        own = (
            []
            if script in ("build_and_push", "check_aws", "prepare_data", "upload_data")
            else ["--folder", str(self.folder / "sagemaker")]
        )
        return [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments, *own]

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        client = boto3.client(
            service,
            endpoint_url=self.cloud.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.clients.append(client)
        return client


@pytest.fixture
def cloud(moto_url: str) -> Iterator[Cloud]:
    with scripted_cloud(moto_url) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def moto_sagemaker(moto_url: str) -> Iterator[Any]:
    """A client that asks moto itself, without scripted answers."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("sagemaker", endpoint_url=moto_url, **keys)  # pyright: ignore[reportCallIssue, reportArgumentType]
    yield client
    client.close()


@pytest.fixture
def shell(cloud: Cloud, tmp_path: Path, moto_sagemaker: Any) -> Iterator[Shell]:
    """Runs commands; whatever they did, and whatever was done to them, live endpoints have all that they need."""
    shell = Shell(tmp_path, aws_environment(cloud.url, tmp_path), cloud)
    try:
        yield shell
    finally:
        shell.close()
    check_live(moto_sagemaker)


@pytest.fixture
def bucket(shell: Shell, request: pytest.FixtureRequest) -> str:
    """A new bucket with a photo below ``photos/train/``; there is another one that is called bucket."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3 = shell.client("s3")
    for one in (name, "bucket"):
        s3.create_bucket(Bucket=one)
        s3.put_object(Bucket=one, Key="photos/train/a/1.jpg", Body=b"x")
    return name


@pytest.fixture
def docker(shell: Shell, tmp_path: Path) -> Path:
    """The folder to which the fake Docker logs its calls; what it pushes is for linux/amd64."""
    shell.cloud.answer("GetDownloadUrlForLayer", {"downloadUrl": f"{shell.cloud.url}/config"})
    shell.cloud.answer("/config", {"os": "linux", "architecture": "amd64"})
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker"
    program.write_text(DOCKER.format(folder=tmp_path, python=ROOT / ".venv/bin/python"), encoding="utf-8")
    program.chmod(0o755)
    write_manifest(tmp_path, "application/vnd.docker.distribution.manifest.v2+json")
    shell.environment["PATH"] = f"{tmp_path / 'bin'}:{shell.environment['PATH']}"
    return tmp_path

"""The commands as a user runs them: processes that speak HTTP to moto's server, which goes wrong where it is told."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.cloud_script import Cloud, aws_environment, scripted_cloud
from support.commands import run_script
from support.moto import free_port, moto_server

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"


@dataclass
class Shell:
    """Runs a command of ``scripts/`` in a folder of the test's own."""

    folder: Path
    environment: dict[str, str]
    cloud: Cloud
    clients: list[Any] = field(default_factory=list)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        _, _, *given = self.command(script, *arguments)
        done = run_script(script, given, folder=self.folder, environment={**self.environment, **environment})
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(script, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def command(self, script: str, *arguments: str) -> list[str]:
        # Reports are not to land in the checkout.
        own = [] if script in ("prepare_data", "upload_data") else ["--folder", str(self.folder / "sagemaker")]
        return [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments, *own]

    def client(self, service: str) -> Any:
        """A client of moto itself."""
        client = boto3.client(
            service,
            endpoint_url=self.cloud.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.clients.append(client)
        return client


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server(free_port()) as url:
        yield url


@pytest.fixture
def cloud(moto_url: str) -> Iterator[Cloud]:
    with scripted_cloud(moto_url) as cloud:
        yield cloud


@pytest.fixture
def shell(cloud: Cloud, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, aws_environment(cloud.url, tmp_path), cloud)
    yield shell
    for client in shell.clients:
        client.close()


@pytest.fixture
def bucket(shell: Shell, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    shell.client("s3").create_bucket(Bucket=name)
    return name

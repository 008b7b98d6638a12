"""Containers of the image in a real Docker engine, started as SageMaker starts them."""

import http.client
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.contract.paths import Paths
from launch.local.opt_ml import lay_out

# The smallest training that is one.
TINY = {"model": "squeezenet1_1", "pretrained": "false", "image_size": "32", "epochs": "1", "batch_size": "8"}
# A small one that learns the drawn shapes.
RESNET = {**TINY, "model": "resnet18", "epochs": "6", "batch_size": "16", "lr": "0.003", "augmentation": "none"}
PATIENCE_S = 150.0


def docker(*arguments: str | Path, check: bool = True) -> str:
    """Run a docker command and return its output, standard error included."""
    ran = subprocess.run(
        ["docker", *map(str, arguments)], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert ran.returncode == 0 or not check, f"docker {arguments}: {ran.stdout}"
    return ran.stdout.strip()


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Poll a condition; fail after PATIENCE_S seconds."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, f"no {what} within {PATIENCE_S:.0f} s"
        time.sleep(0.2)


@dataclass
class Container:
    """One container, running or exited."""

    name: str
    paths: Paths = field(default_factory=Paths)

    def wait(self) -> int:
        """Wait until it exits and return its exit code."""
        return int(docker("wait", self.name))

    @property
    def log(self) -> str:
        """Its output so far, standard error included."""
        return docker("logs", self.name)

    @property
    def failure(self) -> str | None:
        """Content of ``output/failure``, which SageMaker shows as the reason of a failed job."""
        return self.paths.failure.read_text(encoding="utf-8") if self.paths.failure.exists() else None

    @property
    def is_running(self) -> bool:
        """Whether its process has not exited."""
        return docker("inspect", "--format", "{{.State.Running}}", self.name) == "true"

    def stop(self, within_s: int) -> int:
        """Send SIGTERM, then SIGKILL after so many seconds; return the exit code."""
        docker("stop", "--time", str(within_s), self.name)
        return self.wait()

    @property
    def own_address(self) -> tuple[str, int]:
        """The server's own address: a published port's proxy accepts connections before the server listens."""
        return docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name), 8080

    def address(self) -> tuple[str, int]:
        """Host and port on which this machine reaches its server."""
        host, _, port = docker("port", self.name).splitlines()[-1].rpartition(" ")[2].rpartition(":")
        return host, int(port)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Send a request to its server.

        Raises:
            OSError: no complete response was received.
        """
        connection = http.client.HTTPConnection(*self.address(), timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def predict(self, photo: bytes) -> dict[str, Any]:
        """Classify an image; fails unless the answer is 200."""
        status, body = self.request("POST", "/invocations", photo, Content_Type="application/x-image")
        assert status == 200, body
        return json.loads(body)

    def answers(self, path: str) -> bool:
        """Whether GET of the path is answered with 200."""
        try:
            return self.request("GET", path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_for_ping(self) -> None:
        """Wait until the server is healthy; fail if the container exits first."""

        def is_up() -> bool:
            assert self.is_running, self.log
            return self.answers("/ping")

        wait_until(is_up, "/ping")


class Image:
    """Starts containers of an image and removes all of them at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started: list[str] = []

    def run(self, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a command in a new container; return its exit code and output."""
        container = self.start(*command, options=options)
        return container.wait(), container.log

    def start(self, *command: str, options: tuple[str, ...] = (), paths: Paths | None = None) -> Container:
        """Start a command in a new container, without waiting for it."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._started.append(name)
        docker("run", "--detach", "--name", name, *options, self.name, *command)
        return Container(name, paths or Paths())

    def start_training(
        self,
        base: Path,
        channels: Mapping[str, Path],
        hyperparameters: Mapping[str, str] | None = None,
        *,
        options: tuple[str, ...] = (),
        config: Mapping[str, str] | None = None,
        owner: int | None = None,
    ) -> Container:
        """Start ``train`` on a folder laid out as /opt/ml.

        Args:
            config: contents of files of ``input/config``, by name, which replace those written.
            owner: user and group ID that own the folder.
        """
        lay_out(base, channels, {**TINY, **(hyperparameters or {})}, links=False)
        paths = Paths(base)
        for name, content in (config or {}).items():
            (paths.config / name).write_text(content, encoding="utf-8")
        if owner is not None:
            for path in (base, *base.rglob("*")):
                os.chown(path, owner, owner)
        mounts = [f"--volume={base}:/opt/ml"]
        mounts += [f"--volume={folder}:/opt/ml/input/data/{name}:ro" for name, folder in channels.items()]
        return self.start("train", options=(*mounts, *options), paths=paths)

    def start_serving(self, model: Path, *, options: tuple[str, ...] = ()) -> Container:
        """Start ``serve`` on a model folder, mounted read-only as SageMaker does, on a free local port."""
        mounts = ("--publish=127.0.0.1::8080", f"--volume={model}:/opt/ml/model:ro")
        return self.start("serve", options=(*mounts, *options))

    def remove_containers(self) -> None:
        """Kill and remove every container that was started."""
        while self._started:
            docker("rm", "--force", self._started.pop(), check=False)

"""The image's programs in a container of this machine's Docker Engine, as the platform starts them."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from classifier.errors import ConfigError


@dataclass(frozen=True)
class Mount:
    """A folder of this machine in the container."""

    source: Path
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        source = str(self.source.resolve()).replace('"', '""')
        return f'type=bind,"source={source}",target={self.target}{",readonly" if self.read_only else ""}'


@dataclass(frozen=True)
class Engine:
    """What an engine can do."""

    has_gpus: bool = False
    is_rootless: bool = False


def find_engine(image: str) -> Engine:
    """This machine's engine, which holds the image.

    Raises:
        ConfigError: no engine answers, or it has no such image.
    """
    try:
        asked = _docker("info", "--format", "{{json .}}")
    except FileNotFoundError:
        raise ConfigError("an image needs Docker, and there is no command 'docker'; without an image none is") from None
    information = json.loads(asked.stdout) if asked.stdout.strip().startswith("{") else {}
    if asked.returncode or "ServerVersion" not in information:
        reason = " ".join(information.get("ServerErrors") or [asked.stderr.strip()])
        raise ConfigError(f"an image needs Docker's engine, and it does not answer: {reason}")
    if _docker("image", "inspect", "--format", "{{.Id}}", image).returncode:
        raise ConfigError(
            f"there is no image {image!r} on this machine: docker build -t {image} -f docker/Dockerfile . makes it "
            "(if it was to be a hyperparameter: KEY=VALUE)"
        )
    return read_engine(information)


def read_engine(information: Mapping[str, Any]) -> Engine:
    """What ``docker info`` says → what matters of it."""
    options = information.get("SecurityOptions") or []
    return Engine(
        has_gpus="nvidia" in (information.get("Runtimes") or {}),
        is_rootless=any("rootless" in option for option in options),
    )


def run_command(
    engine: Engine,
    image: str,
    program: str,
    *,
    name: str,
    mounts: Sequence[Mount],
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """The ``docker run`` that starts a program of the image; what it writes belongs to the caller."""
    command = ["docker", "run", "--rm", "--name", name]
    if engine.has_gpus:
        command += ["--gpus", "all"]
    # A rootless engine's root is the caller already.
    if not engine.is_rootless:
        command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for mount in mounts:
        command += ["--mount", str(mount)]
    for key, value in (environment or {}).items():
        command += ["--env", f"{key}={value}"]
    return [*command, *options, image, program]


def run(command: Sequence[str], name: str) -> int:
    """Run a container to its end, and return its exit code.

    Ctrl-C and SIGTERM reach its program, which decides how to end; a second one ends it at once.
    """
    # In a session of its own, so that the terminal's Ctrl-C comes once, and from here.
    process = subprocess.Popen(command, start_new_session=True)
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            process.send_signal(number)
        else:
            _docker("kill", name)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)

"""The image's programs as containers of the local Docker engine, started as the platform starts them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError
from launch.local.processes import run_in_foreground


@dataclass(frozen=True)
class Mount:
    """A bind mount; ``str()`` of it is the value of ``docker run --mount``."""

    source: Path
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        source = str(self.source.resolve()).replace('"', '""')
        return f'type=bind,"source={source}",target={self.target}{",readonly" if self.read_only else ""}'


@dataclass(frozen=True)
class ContainerEngine:
    """Capabilities of a Docker engine."""

    has_gpus: bool = False
    is_rootless: bool = False


def find_engine(image: str) -> ContainerEngine:
    """Return the local engine after checking that it has the image.

    Raises:
        ConfigError: Docker is missing, its engine does not answer, or it has no such image.
    """
    try:
        info = _docker("info", "--format", "{{json .}}")
    except FileNotFoundError:
        raise ConfigError("an image needs Docker, and there is no command 'docker': install it") from None
    information = json.loads(info.stdout) if info.stdout.strip().startswith("{") else {}
    if info.returncode or "ServerVersion" not in information:
        reason = " ".join(information.get("ServerErrors") or [info.stderr.strip()])
        raise ConfigError(f"an image needs Docker, and its engine does not answer: {reason}")
    if _docker("image", "inspect", "--format", "{{.Id}}", image).returncode:
        raise ConfigError(
            f"there is no image {image!r} on this machine: build it with "
            f"docker/build.sh {image} (a hyperparameter is written KEY=VALUE)"
        )
    return read_engine(information)


def read_engine(information: Mapping[str, Any]) -> ContainerEngine:
    """Extract the capabilities from the output of ``docker info``."""
    options = information.get("SecurityOptions") or []
    return ContainerEngine(
        has_gpus="nvidia" in (information.get("Runtimes") or {}),
        is_rootless=any("rootless" in option for option in options),
    )


def run_command(
    engine: ContainerEngine,
    image: str,
    program: str,
    *,
    name: str,
    mounts: Sequence[Mount],
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """Return the ``docker run`` command of one of the image's programs. Files that it writes belong to the caller."""
    command = ["docker", "run", "--rm", "--name", name]
    if engine.has_gpus:
        command += ["--gpus", "all"]
    # In a rootless engine, root in the container is the caller.
    if not engine.is_rootless:
        command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for mount in mounts:
        command += ["--mount", str(mount)]
    for key, value in (environment or {}).items():
        command += ["--env", f"{key}={value}"]
    return [*command, *options, image, program]


def run(command: Sequence[str], name: str) -> int:
    """Run a container to its end and return its exit code.

    The first Ctrl-C or SIGTERM is forwarded to its program, which decides how to end; the second kills the container.
    """
    return run_in_foreground(command, kill=lambda: _docker("kill", name))


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)

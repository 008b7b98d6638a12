"""A job's hosts: a process of the program each, or a container of the image each."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.engine import Mount, find_engine, run_command
from launch.local.job_layout import Layout
from launch.local.processes import exit_code, is_alive, read_number, signal_group, start, write_number
from launch.requests.training import NO_IMAGE


@dataclass
class Host:
    """One host that was started; ``code`` is there once it has ended."""

    name: str
    pid: int
    kill: Callable[[], None]
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = exit_code(self.pid)
        return self.code

    def terminate(self) -> None:
        if self.poll() is None:
            signal_group(self.pid, signal.SIGTERM)


def start_hosts(request: Mapping[str, Any], layout: Layout, folder: Path, environment: Mapping[str, str]) -> list[Host]:
    """Start every host; its log is ``folder/logs/NAME.log``.

    Raises:
        ConfigError: an image is asked for, and there is no engine or no such image.
    """
    (folder / "logs").mkdir(exist_ok=True)
    if request["AlgorithmSpecification"]["TrainingImage"] == NO_IMAGE:
        return [_start_process(request, host, base, folder, environment) for host, base in layout.bases.items()]
    return _start_containers(request, layout, folder, environment)


def _start_process(
    request: Mapping[str, Any], host: str, base: Path, folder: Path, environment: Mapping[str, str]
) -> Host:
    specification = request["AlgorithmSpecification"]
    command = [*specification.get("ContainerEntrypoint", [sys.executable, "-m", "classifier.train"])]
    command += specification.get("ContainerArguments", [])
    everything = {**os.environ, **environment, "SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1"}
    log, lock = folder / "logs" / f"{host}.log", folder / f"{host}.lock"
    pid = start(command, lock=lock, log=log, environment=everything)
    write_number(folder / f"{host}.pid", pid)
    return Host(host, pid, kill=lambda: signal_group(pid, signal.SIGKILL))


def _start_containers(
    request: Mapping[str, Any], layout: Layout, folder: Path, environment: Mapping[str, str]
) -> list[Host]:
    image = request["AlgorithmSpecification"]["TrainingImage"]
    engine = find_engine(image)
    network = f"sagemaker-{request['TrainingJobName']}"
    internal = ["--internal"] if request.get("EnableNetworkIsolation") else []
    _docker("network", "create", *internal, network)
    hosts = []
    for host, base in layout.bases.items():
        name = f"{request['TrainingJobName']}-{host}"
        mounts = [Mount(base, "/opt/ml")]
        mounts += [Mount(place, f"/opt/ml/input/data/{one}", True) for one, place in layout.channels.items()]
        mounts += [Mount(place, target) for target, place in layout.shared.items()]
        options = ["--network", network, "--network-alias", host, "--hostname", host]
        options += _entrypoint(request)
        command = run_command(
            engine, image, "train", name=name, mounts=mounts, environment=environment, options=options
        )
        command += request["AlgorithmSpecification"].get("ContainerArguments", [])
        log, lock = folder / "logs" / f"{host}.log", folder / f"{host}.lock"
        pid = start(command, lock=lock, log=log, environment=os.environ)
        write_number(folder / f"{host}.pid", pid)
        hosts.append(Host(host, pid, kill=lambda name=name: _docker("kill", name)))
    return hosts


def _entrypoint(request: Mapping[str, Any]) -> list[str]:
    entrypoint = request["AlgorithmSpecification"].get("ContainerEntrypoint")
    return ["--entrypoint", entrypoint[0]] if entrypoint else []


def remove_leftovers(request: Mapping[str, Any], folder: Path) -> None:
    """End what a job that ended, or whose supervisor was killed, has left running."""
    for path in folder.glob("algo-*.pid"):
        number = read_number(path)
        if number and is_alive(path.with_suffix(".lock")):
            signal_group(number, signal.SIGKILL)
    if request["AlgorithmSpecification"]["TrainingImage"] != NO_IMAGE:
        for path in folder.glob("algo-*.pid"):
            _docker("rm", "--force", f"{request['TrainingJobName']}-{path.stem}")
        _docker("network", "rm", f"sagemaker-{request['TrainingJobName']}")


def _docker(*arguments: str) -> None:
    with suppress(FileNotFoundError):
        subprocess.run(["docker", *arguments], check=False, capture_output=True)

"""A job's hosts: a process of the program each, or a container of the image each."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.local.docker import Mount, find_engine, run_command
from launch.local.opt_ml import CHECKPOINTS, NO_IMAGE, TENSORS, lay_out, resources
from launch.local.processes import exit_code, is_alive, read_number, signal_group, start, write_number
from launch.local.storage import folder_of

OPT_ML = "/opt/ml"
PROFILES = "/opt/ml/output/profiler"


@dataclass(frozen=True)
class Layout:
    """The hosts' folders, and the folders of this machine that all of them share, by their names in the container."""

    bases: Mapping[str, Path]
    channels: Mapping[str, Path]
    shared: Mapping[str, Path]


def host_names(request: Mapping[str, Any]) -> list[str]:
    return [f"algo-{number}" for number in range(1, request["ResourceConfig"].get("InstanceCount", 1) + 1)]


def lay_out_job(request: Mapping[str, Any], channels: Mapping[str, Path], folder: Path) -> Layout:
    """Make ``folder/algo-1`` and so on."""
    in_image = request["AlgorithmSpecification"]["TrainingImage"] != NO_IMAGE
    hosts = host_names(request)
    shared = _shared(request)
    bases = {host: folder / host for host in hosts}
    for host, base in bases.items():
        config = _config(request, host, hosts, None if in_image else base)
        lay_out(base, channels, request.get("HyperParameters", {}), links=not in_image, config=config)
        for name, place in shared.items():
            _share(name, place, base, in_image)
    return Layout(bases, channels, shared)


def located(path: str, base: Path | None) -> str:
    """A path below ``/opt/ml`` as the program finds it: in the image as it is, without one below ``base``."""
    if base is None or not Path(path).is_relative_to(OPT_ML):
        return path
    return str(base / Path(path).relative_to(OPT_ML))


def _shared(request: Mapping[str, Any]) -> dict[str, Path]:
    checkpoints = request.get("CheckpointConfig")
    if not checkpoints:
        return {}
    folder = folder_of(checkpoints["S3Uri"], "CheckpointConfig.S3Uri")
    folder.mkdir(parents=True, exist_ok=True)
    return {checkpoints.get("LocalPath", CHECKPOINTS): folder}


def _share(name: str, place: Path, base: Path, in_image: bool) -> None:
    if in_image or not Path(name).is_relative_to(OPT_ML):
        return
    link = Path(located(name, base))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place.resolve(), target_is_directory=True)


def _config(request: Mapping[str, Any], host: str, hosts: Sequence[str], base: Path | None) -> dict[str, object]:
    config: dict[str, object] = {
        "inputdataconfig": {one["ChannelName"]: _channel(one, request) for one in request.get("InputDataConfig", ())},
        "resourceconfig": resources(host, hosts, "lo" if base else "eth0"),
    }
    if checkpoints := request.get("CheckpointConfig"):
        config["checkpointconfig"] = {"LocalPath": _checkpoint_path(checkpoints, base)}
    if hook := request.get("DebugHookConfig"):
        config["debughookconfig"] = {**hook, "LocalPath": located(hook.get("LocalPath", TENSORS), base)}
    profiler = request.get("ProfilerConfig")
    if profiler and not profiler.get("DisableProfiler"):
        config["profilerconfig"] = _profiler(profiler, base)
    return config


def _checkpoint_path(checkpoints: Mapping[str, str], base: Path | None) -> str:
    path = checkpoints.get("LocalPath", CHECKPOINTS)
    if base is None or Path(path).is_relative_to(OPT_ML):
        return located(path, base)
    return str(folder_of(checkpoints["S3Uri"], "CheckpointConfig.S3Uri"))


def _profiler(profiler: Mapping[str, Any], base: Path | None) -> dict[str, object]:
    parameters = {"ProfilerEnabled": True, "LocalPath": located(PROFILES, base)}
    return {**profiler, "ProfilingParameters": {**parameters, **profiler.get("ProfilingParameters", {})}}


def _channel(channel: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    mode = channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"]
    return {
        **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
        "TrainingInputMode": mode,
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }


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

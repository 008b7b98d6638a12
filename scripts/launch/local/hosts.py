"""Hosts of a local training job: one process of the training program each, or one container of the image each."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.contract.paths import OPT_ML, Paths
from classifier.host import num_cores
from launch.local.docker import Mount, find_engine, run_command
from launch.local.opt_ml import CHECKPOINTS, NO_IMAGE, TENSORS, lay_out, resource_config
from launch.local.processes import LOOPBACK, exit_code, free_port, running_pid, signal_group, start_process
from launch.local.storage import local_path

_PROFILES = OPT_ML / "output" / "profiler"


@dataclass(frozen=True)
class JobLayout:
    """Folders of a training job.

    Attributes:
        bases: each host's ``/opt/ml``.
        channels: the channels' folders by name.
        shared: folders that all hosts share, by their path in the container.
    """

    bases: Mapping[str, Path]
    channels: Mapping[str, Path]
    shared: Mapping[Path, Path]


@dataclass
class TrainingHost:
    """A host that has been started; ``code`` is its exit code once it has ended."""

    name: str
    pid: int
    kill: Callable[[], None]
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the host runs."""
        if self.code is None:
            self.code = exit_code(self.pid)
        return self.code

    def terminate(self) -> None:
        """Send SIGTERM, unless the host has ended."""
        if self.poll() is None:
            signal_group(self.pid, signal.SIGTERM)


def lay_out_job(request: Mapping[str, Any], channels: Mapping[str, Path], folder: Path) -> JobLayout:
    """Create each host's ``/opt/ml`` in ``folder/algo-1`` and so on, in the place of those of an earlier attempt."""
    in_container = _uses_image(request)
    hosts = [f"algo-{number}" for number in range(1, request["ResourceConfig"].get("InstanceCount", 1) + 1)]
    shared = _shared_folders(request)
    bases = {host: folder / host for host in hosts}
    for host, base in bases.items():
        # A container has its folder mounted at /opt/ml; a process gets paths below the folder itself.
        paths = Paths() if in_container else Paths(base)
        config = _config(request, host, hosts, paths)
        shutil.rmtree(base, ignore_errors=True)
        lay_out(base, channels, request.get("HyperParameters", {}), links=not in_container, config=config)
        if not in_container:
            _link(shared, paths)
    return JobLayout(bases, channels, shared)


def start_hosts(
    request: Mapping[str, Any], layout: JobLayout, folder: Path, environment: Mapping[str, str]
) -> list[TrainingHost]:
    """Start all hosts; their logs are ``folder/logs/NAME.log``.

    Raises:
        ConfigError: the request names an image, and there is no Docker engine or no such image.
    """
    (folder / "logs").mkdir(exist_ok=True)
    environment = {**_share_of_cores(len(layout.bases)), **environment}
    if _uses_image(request):
        return _start_containers(request, layout, folder, environment)
    if len(layout.bases) > 1:
        # The hosts' names do not resolve here.
        environment = {**environment, "MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(free_port(LOOPBACK))}
    return [_start_process(request, host, base, folder, environment) for host, base in layout.bases.items()]


def remove_leftovers(request: Mapping[str, Any], folder: Path) -> None:
    """Kill what is still running of a job that has ended or lost its supervisor."""
    locks = sorted(folder.glob("algo-*.lock"))
    for lock in locks:
        if pid := running_pid(lock):
            signal_group(pid, signal.SIGKILL)
    if _uses_image(request):
        for path in locks:
            _docker("rm", "--force", f"{request['TrainingJobName']}-{path.stem}")
        _docker("network", "rm", _network(request))


def _share_of_cores(num_hosts: int) -> dict[str, str]:
    """Return the variable that limits a host to its share of this machine's cores; none for a single host."""
    return {"OMP_NUM_THREADS": str(max(1, num_cores() // num_hosts))} if num_hosts > 1 else {}


def _uses_image(request: Mapping[str, Any]) -> bool:
    return request["AlgorithmSpecification"]["TrainingImage"] != NO_IMAGE


def _shared_folders(request: Mapping[str, Any]) -> dict[Path, Path]:
    checkpoints = request.get("CheckpointConfig")
    if not checkpoints:
        return {}
    folder = local_path(checkpoints["S3Uri"], "CheckpointConfig.S3Uri")
    folder.mkdir(parents=True, exist_ok=True)
    return {Path(checkpoints.get("LocalPath", CHECKPOINTS)): folder}


def _link(shared: Mapping[Path, Path], paths: Paths) -> None:
    for path, folder in shared.items():
        if path.is_relative_to(OPT_ML):
            link = paths.relocate(path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder.resolve(), target_is_directory=True)


def _config(request: Mapping[str, Any], host: str, hosts: Sequence[str], paths: Paths) -> dict[str, object]:
    """Return the config files of one host, by name."""
    config: dict[str, object] = {
        "inputdataconfig": {one["ChannelName"]: _channel(one, request) for one in request.get("InputDataConfig", ())},
        "resourceconfig": resource_config(host, hosts, "eth0" if paths.base == OPT_ML else "lo"),
    }
    if checkpoints := request.get("CheckpointConfig"):
        config["checkpointconfig"] = {**checkpoints, "LocalPath": _checkpoint_path(checkpoints, paths)}
    if hook := request.get("DebugHookConfig"):
        tensors = paths.relocate(Path(hook.get("LocalPath", TENSORS)))
        config["debughookconfig"] = {**hook, "LocalPath": str(tensors)}
    profiler = request.get("ProfilerConfig")
    if profiler and not profiler.get("DisableProfiler"):
        parameters = {"ProfilerEnabled": True, "LocalPath": str(paths.relocate(_PROFILES))}
        parameters.update(profiler.get("ProfilingParameters", {}))
        config["profilerconfig"] = {**profiler, "ProfilingParameters": parameters}
    return config


def _checkpoint_path(checkpoints: Mapping[str, str], paths: Paths) -> str:
    path = Path(checkpoints.get("LocalPath", CHECKPOINTS))
    if paths.base == OPT_ML or path.is_relative_to(OPT_ML):
        return str(paths.relocate(path))
    # A process has nothing mounted at other paths.
    return str(local_path(checkpoints["S3Uri"], "CheckpointConfig.S3Uri"))


def _channel(channel: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    mode = channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"]
    return {
        **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
        "TrainingInputMode": mode,
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }


def _start_process(
    request: Mapping[str, Any], host: str, base: Path, folder: Path, environment: Mapping[str, str]
) -> TrainingHost:
    specification = request["AlgorithmSpecification"]
    command = [*specification.get("ContainerEntrypoint", [sys.executable, "-m", "classifier.train"])]
    command += specification.get("ContainerArguments", [])
    own = {"SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1"}
    pid = _start(command, host, folder, {**os.environ, **environment, **own})
    return TrainingHost(host, pid, kill=lambda: signal_group(pid, signal.SIGKILL))


def _start_containers(
    request: Mapping[str, Any], layout: JobLayout, folder: Path, environment: Mapping[str, str]
) -> list[TrainingHost]:
    specification = request["AlgorithmSpecification"]
    image, network = specification["TrainingImage"], _network(request)
    engine = find_engine(image)
    internal = ["--internal"] if request.get("EnableNetworkIsolation") else []
    _docker("network", "create", *internal, network)
    hosts = []
    for host, base in layout.bases.items():
        name = f"{request['TrainingJobName']}-{host}"
        mounts = [Mount(base, "/opt/ml")]
        mounts += [Mount(source, f"/opt/ml/input/data/{channel}", True) for channel, source in layout.channels.items()]
        mounts += [Mount(source, str(target)) for target, source in layout.shared.items()]
        options = ["--network", network, "--network-alias", host, "--hostname", host]
        if entrypoint := specification.get("ContainerEntrypoint"):
            options += ["--entrypoint", entrypoint[0]]
        command = run_command(
            engine, image, "train", name=name, mounts=mounts, environment=environment, options=options
        )
        pid = _start([*command, *specification.get("ContainerArguments", [])], host, folder, os.environ)
        hosts.append(TrainingHost(host, pid, kill=lambda name=name: _docker("kill", name)))
    return hosts


def _start(command: Sequence[str], host: str, folder: Path, environment: Mapping[str, str]) -> int:
    log, lock = folder / "logs" / f"{host}.log", folder / f"{host}.lock"
    return start_process(command, lock=lock, log=log, environment=environment)


def _network(request: Mapping[str, Any]) -> str:
    return f"sagemaker-{request['TrainingJobName']}"


def _docker(*arguments: str) -> None:
    with suppress(FileNotFoundError):
        subprocess.run(["docker", *arguments], check=False, capture_output=True)

"""A CreateTrainingJob request → ``/opt/ml`` of each of its hosts, with all the files that the platform writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.local.addresses import folder_of
from launch.opt_ml import lay_out, resources
from launch.requests.training import CHECKPOINTS, NO_IMAGE, TENSORS

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

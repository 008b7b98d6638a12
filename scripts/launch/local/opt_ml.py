"""A folder laid out as the platform lays out ``/opt/ml``, with the same files in it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from classifier.errors import ConfigError, DataError

JOB_NAME = "local-training"
# In the place of an image's URI: the programs installed on this machine. Only the local client knows it.
NO_IMAGE = "local"
TENSORS = "/opt/ml/output/tensors"
CHECKPOINTS = "/opt/ml/checkpoints"
_PARTS = {"input", "model", "output", "checkpoints"}
_CHANNELS = ("train", "validation", "test")


def find_channels(data: Path) -> dict[str, Path]:
    """A folder that holds ``train/``, ``validation/``, ``test/``, or class folders only, → its channels.

    A folder ``train`` that itself holds no folders is a class of that name.

    Raises:
        DataError: the folder does not exist, or holds channels but no ``train``.
    """
    if not data.is_dir():
        raise DataError(f"--data {data}: there is no such folder")
    others = [name for name in _CHANNELS[1:] if _holds_folders(data / name)]
    if others and not (data / "train").is_dir():
        raise DataError(f"--data {data} holds {' and '.join(others)} but no train: add train/, or name one of them")
    if _holds_folders(data / "train"):
        return {name: data / name for name in _CHANNELS if (data / name).is_dir()}
    return {"train": data}


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())


def lay_out(
    base: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    *,
    links: bool = True,
    config: Mapping[str, object] | None = None,
) -> None:
    """Make ``base`` afresh, with the config files of a training job and links to the channels' folders.

    Without ``links`` the channels are empty folders, for an engine to mount over. ``config`` holds further files of
    ``input/config`` by their names without ``.json``, and others in the place of this module's own.

    Raises:
        ConfigError: ``base`` holds something else, or a channel, which would be lost.
        DataError: a channel's folder does not exist.
    """
    for name, folder in channels.items():
        if not folder.is_dir():
            raise DataError(f"channel {name!r}: there is no folder {folder}")
        if folder.resolve().is_relative_to(base.resolve()):
            raise ConfigError(
                f"channel {name!r}: {folder} lies in --output {base}, which is made afresh: name another --output"
            )
    _clear(base)
    folder_of_config = base / "input" / "config"
    for folder in (folder_of_config, base / "input" / "data", base / "model", base / "output" / "data"):
        folder.mkdir(parents=True)
    for name, folder in channels.items():
        place = base / "input" / "data" / name
        if links:
            place.symlink_to(folder.resolve(), target_is_directory=True)
        else:
            place.mkdir()
    files: dict[str, object] = {
        "hyperparameters": dict(hyperparameters),
        "inputdataconfig": {name: _channel(name) for name in channels},
        "resourceconfig": resources("algo-1", ["algo-1"], "lo"),
        **(config or {}),
    }
    for name, content in files.items():
        _write(folder_of_config / f"{name}.json", content)


def _clear(base: Path) -> None:
    """Only what this module has made is removed."""
    if not base.exists():
        return
    entries = {entry.name for entry in base.iterdir()} if base.is_dir() else {base.name}
    is_ours = (base / "input" / "config").is_dir()
    others = sorted(entries - _PARTS if is_ours else entries)
    if others:
        raise ConfigError(f"--output {base} holds {', '.join(others[:3])}, which would be lost: name another folder")
    shutil.rmtree(base)


def _channel(name: str) -> dict[str, str]:
    return {
        "ContentType": "application/x-sagemaker-model" if name == "model" else "application/x-image",
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }


def resources(host: str, hosts: Sequence[str], interface: str) -> dict[str, object]:
    """``resourceconfig.json`` as one of the hosts sees it."""
    group, instance = "homogeneousCluster", "local"
    return {
        "current_host": host,
        "current_instance_type": instance,
        "current_group_name": group,
        "hosts": sorted(hosts),
        "instance_groups": [{"instance_group_name": group, "instance_type": instance, "hosts": list(hosts)}],
        "network_interface_name": interface,
        "topology": None,
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

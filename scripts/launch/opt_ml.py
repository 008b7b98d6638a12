"""A folder laid out as the platform lays out ``/opt/ml``, with the same files in it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from classifier.errors import ConfigError, DataError

JOB_NAME = "local-training"
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
    base: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str], *, links: bool = True
) -> None:
    """Make ``base`` afresh, with the config files of a training job and links to the channels' folders.

    Without ``links`` the channels are empty folders, for an engine to mount over.

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
    config = base / "input" / "config"
    for folder in (config, base / "input" / "data", base / "model", base / "output" / "data"):
        folder.mkdir(parents=True)
    for name, folder in channels.items():
        place = base / "input" / "data" / name
        if links:
            place.symlink_to(folder.resolve(), target_is_directory=True)
        else:
            place.mkdir()
    _write(config / "hyperparameters.json", dict(hyperparameters))
    _write(config / "inputdataconfig.json", {name: _channel(name) for name in channels})
    _write(config / "resourceconfig.json", _resources())


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


def _resources() -> dict[str, object]:
    host, group, instance = "algo-1", "homogeneousCluster", "local"
    return {
        "current_host": host,
        "current_instance_type": instance,
        "current_group_name": group,
        "hosts": [host],
        "instance_groups": [{"instance_group_name": group, "instance_type": instance, "hosts": [host]}],
        "network_interface_name": "lo",
        "topology": None,
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

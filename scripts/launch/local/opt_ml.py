"""A folder with the layout and the config files of the platform's ``/opt/ml``."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from classifier.errors import ConfigError, DataError

JOB_NAME = "local-training"
# In the place of an image's URI: the programs installed on this machine. Only the local client knows it.
NO_IMAGE = "local"
TENSORS = "/opt/ml/output/tensors"
CHECKPOINTS = "/opt/ml/checkpoints"
_ENTRIES = {"input", "model", "output", "checkpoints"}


def lay_out(
    base: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    *,
    links: bool = True,
    config: Mapping[str, object] | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Replace ``base`` with a fresh layout: a training job's config files, and links to the channels' folders.

    Args:
        links: if false, channels are empty folders instead, mount points for a container engine.
        config: contents of files in ``input/config`` by name without ``.json``, in addition to or instead of the
            default ones.
        checkpoints: a folder of checkpoints to go on from: that in ``base``, which is kept, or another.

    Raises:
        ConfigError: ``base`` holds other files or a channel, which would be lost.
        DataError: a channel's folder does not exist.
    """
    check_replaceable(base, channels)
    for entry in base.iterdir() if base.exists() else ():
        if entry != checkpoints:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    config_folder = base / "input" / "config"
    for folder in (config_folder, base / "input" / "data", base / "model", base / "output" / "data"):
        folder.mkdir(parents=True)
    own = base / Path(CHECKPOINTS).name
    if checkpoints is not None and checkpoints != own:
        # A checkpoint's file is replaced and never changed, so links serve as copies.
        shutil.copytree(checkpoints, own, copy_function=os.link)
    for name, folder in channels.items():
        path = base / "input" / "data" / name
        if links:
            path.symlink_to(folder.resolve(), target_is_directory=True)
        else:
            path.mkdir()
    files: dict[str, object] = {
        "hyperparameters": dict(hyperparameters),
        "inputdataconfig": {name: _channel_config(name) for name in channels},
        "resourceconfig": resource_config("algo-1", ["algo-1"], "lo"),
        **(config or {}),
    }
    for name, content in files.items():
        (config_folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_replaceable(base: Path, channels: Mapping[str, Path]) -> None:
    """Check that ``base`` holds an earlier layout at most, and no channel.

    Raises:
        ConfigError: ``base`` holds other files or a channel, which would be lost.
        DataError: a channel's folder does not exist.
    """
    for name, folder in channels.items():
        if not folder.is_dir():
            raise DataError(f"channel {name!r}: there is no folder {folder}")
        if folder.resolve().is_relative_to(base.resolve()):
            raise ConfigError(
                f"channel {name!r}: {folder} is inside --output {base}, which is cleared: choose another --output"
            )
    if not base.exists():
        return
    entries = {entry.name for entry in base.iterdir()} if base.is_dir() else {base.name}
    is_layout = (base / "input" / "config").is_dir()
    others = sorted(entries - _ENTRIES if is_layout else entries)
    if others:
        raise ConfigError(f"--output {base} holds {', '.join(others[:3])}, which would be lost: choose another folder")


def staging_folder(output: Path) -> Path:
    """Return the folder beside ``output`` in which a training runs until it has succeeded."""
    return output.with_name(f"{output.name}.part")


def find_checkpoints(output: Path) -> Path:
    """Return the folder of the checkpoints from which the next training resumes.

    They are those of the training that did not finish, in the staging folder, or those of the finished one.

    Raises:
        ConfigError: there are none.
    """
    folders = [folder / Path(CHECKPOINTS).name for folder in (staging_folder(output), output)]
    for folder in folders:
        if any(folder.glob("checkpoint-*.safetensors")):
            return folder
    raise ConfigError(f"there are no checkpoints in {folders[0]} or {folders[1]}: train without --resume first")


def publish(output: Path) -> bool:
    """Put the training in the staging folder in the place of ``output``, if it has a model.

    Returns:
        Whether it has one; if not, nothing is changed.
    """
    staged, old = staging_folder(output), output.with_name(f"{output.name}.old")
    if not (staged / "model" / "model.json").is_file():
        return False
    if output.exists():
        shutil.rmtree(old, ignore_errors=True)
        output.rename(old)
    staged.rename(output)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _channel_config(name: str) -> dict[str, str]:
    return {
        "ContentType": "application/x-sagemaker-model" if name == "model" else "application/x-image",
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }


def resource_config(host: str, hosts: Sequence[str], interface: str) -> dict[str, object]:
    """Return the content of ``resourceconfig.json`` on one of the hosts."""
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

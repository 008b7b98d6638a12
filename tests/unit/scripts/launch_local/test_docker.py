"""Docker commands of the local client."""

from pathlib import Path

import pytest

from classifier.errors import ConfigError
from launch.local.docker import ContainerEngine, Mount, find_engine, read_engine, run_command


def test_containers_get_gpus_if_the_engine_has_them() -> None:
    engine = read_engine({"Runtimes": {"runc": {}, "nvidia": {}}, "SecurityOptions": ["name=seccomp,profile=default"]})
    assert engine == ContainerEngine(has_gpus=True, is_rootless=False)
    command = run_command(engine, "image", "train", name="one", mounts=[])
    assert command[command.index("--gpus") + 1] == "all"


def test_written_files_belong_to_the_caller() -> None:
    assert "--user" in run_command(ContainerEngine(), "image", "train", name="one", mounts=[])


def test_rootless_engine_runs_as_root() -> None:
    engine = read_engine({"Runtimes": {"runc": {}}, "SecurityOptions": ["name=rootless", "name=cgroupns"]})
    assert engine.is_rootless
    assert "--user" not in run_command(engine, "image", "train", name="one", mounts=[])


def test_mount_quotes_any_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "my photos, all:2"
    mount = str(Mount(folder, "/opt/ml/input/data/train", read_only=True))
    assert mount == f'type=bind,"source={folder}",target=/opt/ml/input/data/train,readonly'


def test_missing_docker_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no command 'docker'"):
        find_engine("image-classifier")


def test_stopped_engine_is_told_apart_from_a_missing_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("""#!/bin/sh
echo '{"ServerErrors": ["Cannot connect to the Docker daemon"]}'
exit 1
""")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="does not answer: Cannot connect"):
        find_engine("image-classifier")

"""Contents and metadata of the image."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.containers import Image, docker
from support.drawing import write_classes

ROOT = Path(__file__).resolve().parents[2]
MAX_GB = 7.0

# Loads every library that torch links and resolves all symbols; only the host's driver may be missing.
LOAD_ALL = """
import ctypes, os, pathlib, torch
site = pathlib.Path(torch.__file__).parent.parent
failed = {}
for library in [*site.glob("torch/lib/*.so*"), *site.glob("nvidia/*/lib/*.so*")]:
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOW)
    except OSError as error:
        if "libcuda.so.1" not in str(error):
            failed[library.name] = str(error)
print(failed)
"""


@pytest.fixture
def settings(image_name: str) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", image_name))[0]


def test_labels_and_port_of_the_platform(settings: dict[str, Any]) -> None:
    labels = settings["Config"]["Labels"]
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert labels["org.opencontainers.image.revision"]
    assert "8080/tcp" in settings["Config"]["ExposedPorts"]
    assert settings["Config"]["Entrypoint"] is None


def test_driver_is_requested_and_output_unbuffered(settings: dict[str, Any]) -> None:
    environment = dict(pair.split("=", 1) for pair in settings["Config"]["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment["PYTHONUNBUFFERED"] == "1"


def test_size(settings: dict[str, Any]) -> None:
    assert settings["Size"] / 1e9 < MAX_GB


def test_image_contains_neither_compiler_nor_sdk(image: Image) -> None:
    code, log = image.run("sh", "-c", "command -v gcc cc make || python -c 'import sagemaker'")
    assert code == 1
    assert "No module named 'sagemaker'" in log


@pytest.mark.parametrize("program", ["train", "serve"])
def test_programs_are_on_the_path_and_need_no_shell(image: Image, program: str) -> None:
    assert image.run("sh", "-c", f"head -n 1 $(command -v {program})")[1] == "#!/opt/venv/bin/python"


def test_all_cuda_libraries_can_be_loaded(image: Image) -> None:
    code, log = image.run("python", "-c", LOAD_ALL)
    assert (code, log) == (0, "{}")


def test_failed_download_of_weights_is_an_error_with_the_alternative(image: Image) -> None:
    options = ("--network=none", f"--volume={ROOT / 'docker/bake_weights.py'}:/tmp/bake_weights.py:ro")
    code, log = image.run("python", "/tmp/bake_weights.py", "resnet18", options=options)
    assert code == 1
    assert "--build-arg BAKED_WEIGHTS= " in log
    code, log = image.run("python", "/tmp/bake_weights.py", "resnet19", options=options)
    assert code == 1
    assert "resnet19" in log


def test_training_without_the_hub_is_an_error_with_the_alternatives(image: Image, tmp_path: Path) -> None:
    channels = {"train": write_classes(tmp_path / "photos")}
    parameters = {"model": "alexnet", "image_size": "64", "pretrained": "true"}
    container = image.start_training(tmp_path / "ml", channels, parameters, options=("--network=none",))
    assert container.wait() == 1
    assert container.failure is not None
    assert "BAKED_WEIGHTS=alexnet" in container.failure

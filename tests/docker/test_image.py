"""Contents and metadata of the image."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from classifier.contract.driver import CUDA
from support.containers import Image, docker
from support.drawing import write_classes
from support.hub import running_hub

ROOT = Path(__file__).resolve().parents[2]
MAX_GB = 7.0
# The layer that most changes of the requirements replace, with its files and their bytecode.
MAX_REST_GB = 0.6

# Loads every library that torch links and resolves all symbols; only the host's driver may be missing.
LOAD_ALL = """
import ctypes, json, os, pathlib, torch
site = pathlib.Path(torch.__file__).parent.parent
libraries = [*site.glob("torch/lib/*.so*"), *site.glob("nvidia/*/lib/*.so*")]
failed = {}
for library in libraries:
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOW)
    except OSError as error:
        if "libcuda.so.1" not in str(error):
            failed[library.name] = str(error)
names = sorted({library.name.partition(".")[0] for library in libraries})
print(json.dumps({"cuda": torch.version.cuda, "names": names, "failed": failed}))
"""
CUDA_LIBRARIES = {"libtorch_cuda", "libcudart", "libcublas", "libcudnn", "libnccl", "libcufft", "libcusparse"}
COMPILERS = ("gcc", "cc", "g++", "c++", "cpp", "clang", "make", "ld", "as", "nvcc")
INSTALLED = """
from importlib.metadata import distributions
print(*sorted(f"{one.name.lower()}=={one.version}" for one in distributions()), sep="\\n")
"""


@pytest.fixture
def settings(image_name: str) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", image_name))[0]


def test_labels_and_port_of_the_platform(settings: dict[str, Any]) -> None:
    labels = settings["Config"]["Labels"]
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert "8080/tcp" in settings["Config"]["ExposedPorts"]
    assert settings["Config"]["Entrypoint"] is None


def test_driver_is_requested_and_output_unbuffered(settings: dict[str, Any]) -> None:
    environment = dict(pair.split("=", 1) for pair in settings["Config"]["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"
    assert environment["PYTHONUNBUFFERED"] == "1"


def test_revision_is_a_commit_of_this_repository(settings: dict[str, Any]) -> None:
    revision = settings["Config"]["Labels"]["org.opencontainers.image.revision"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)
    subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", revision.removesuffix("-dirty")], check=True)


def test_platform_is_that_of_the_hosts(settings: dict[str, Any]) -> None:
    assert (settings["Os"], settings["Architecture"]) == ("linux", "amd64")


def test_labels_describe_the_contents(settings: dict[str, Any], image: Image) -> None:
    labels = settings["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.name"].startswith("python:3.11-slim-bookworm")
    assert labels["image-classifier.requirements"] == image.run("python", "-c", INSTALLED)[1]
    assert "torch==2." in labels["image-classifier.requirements"]
    document = json.loads(labels["image-classifier.openapi"])
    validate(document)
    assert "/invocations" in document["paths"]


def test_size(settings: dict[str, Any]) -> None:
    assert settings["Size"] / 1e9 < MAX_GB


def test_small_packages_are_in_a_layer_of_their_own(image_name: str) -> None:
    lines = docker("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image_name).splitlines()
    sizes = [int(size) / 1e9 for size, _, step in (line.partition(" ") for line in lines) if "COPY" in step]
    # From the last: the program twice, the rest, the weights, torch, nvidia.
    assert len(sizes) == 6
    assert sizes[2] < MAX_REST_GB < 1 < sizes[4] < sizes[5]


def test_image_contains_neither_compiler_nor_sdk(image: Image) -> None:
    # Python is the proof that the loop finds what there is.
    search = f"for name in python {' '.join(COMPILERS)}; do command -v $name; done; python -c 'import sagemaker'"
    code, log = image.run("sh", "-c", search)
    assert code == 1
    assert log.splitlines()[0] == "/opt/venv/bin/python"
    assert log.splitlines()[1].startswith("Traceback")
    assert "No module named 'sagemaker'" in log


def test_virtual_environment_has_no_scripts_of_removed_packages(image: Image) -> None:
    _, log = image.run("ls", "/opt/venv/bin")
    assert {name for name in log.split() if not name.lower().startswith("activate")} == {
        "python",
        "python3",
        "python3.11",
    }


@pytest.mark.parametrize("program", ["train", "serve"])
def test_programs_are_on_the_path_and_need_no_shell(image: Image, program: str) -> None:
    line = image.run("sh", "-c", f"head -n 1 $(command -v {program})")[1]
    assert line.startswith("#!/usr/bin/env -S ")
    assert line.endswith(" /opt/venv/bin/python")


def test_all_cuda_libraries_can_be_loaded(image: Image) -> None:
    code, log = image.run("python", "-c", LOAD_ALL)
    assert code == 0, log
    found = json.loads(log)
    assert (found["cuda"], found["failed"]) == (CUDA, {})
    assert set(found["names"]) >= CUDA_LIBRARIES


def test_plots_can_be_saved_as_pdf(image: Image) -> None:
    plot = "import matplotlib.pyplot as p; p.title('Loss'); p.savefig('/tmp/plot.pdf')"
    code, log = image.run("python", "-c", plot, options=("--env=MPLBACKEND=agg",))
    assert code == 0, log


def test_training_without_the_hub_is_an_error_with_the_alternatives(image: Image, tmp_path: Path) -> None:
    channels = {"train": write_classes(tmp_path / "photos")}
    parameters = {"model": "alexnet", "image_size": "64", "pretrained": "true"}
    container = image.start_training(tmp_path / "ml", channels, parameters, options=("--network=none",))
    assert container.wait() == 1
    assert container.failure is not None
    assert "BAKED_WEIGHTS=alexnet" in container.failure


def test_any_user_can_download_weights(image: Image, tmp_path: Path) -> None:
    channels = {"train": write_classes(tmp_path / "photos")}
    parameters = {"model": "alexnet", "image_size": "64", "pretrained": "true"}
    with running_hub(tmp_path, {"alexnet-owt-7be5be79.pth": b"downloaded"}) as hub:
        options = ["--network=host", "--read-only", "--tmpfs=/tmp", "--user=12345:12345"]
        certificate = hub.pop("SSL_CERT_FILE")
        options += ["--env=SSL_CERT_FILE=/hub.pem", f"--volume={certificate}:/hub.pem:ro"]
        options += [f"--env={name}={value}" for name, value in hub.items()]
        container = image.start_training(tmp_path / "ml", channels, parameters, options=tuple(options), owner=12345)
        assert container.wait() == 1
    # The file arrived and was written, and only its hash is not the published one.
    assert container.failure is not None
    assert "invalid hash value" in container.failure

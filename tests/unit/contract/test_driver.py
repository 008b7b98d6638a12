from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from classifier.contract import driver
from classifier.contract.driver import Host, check_driver, parse_version, read_host
from classifier.errors import ConfigError

CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021
GCC version:  gcc version 7.3.1 20180712 (Red Hat 7.3.1-13) (GCC)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs-builder@U22-I3)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


@pytest.mark.parametrize(("text", "expected"), [(CLOSED, "470.57.02"), (OPEN, "550.163.01"), ("", None)])
def test_the_version_is_read_from_either_kernel_module(text: str, expected: str | None) -> None:
    assert parse_version(text) == expected


@pytest.mark.parametrize("installed", ["525.60.13", "525.85.12", "535.183.01", "550.54.15", "570", "580.65.06"])
def test_drivers_of_cuda_12_and_later_will_do(installed: str) -> None:
    check_driver(Host(installed, wants_cuda=True), "training")


def test_a_host_without_a_gpu_needs_no_driver() -> None:
    check_driver(Host(None, wants_cuda=False), "hosting")


@pytest.mark.parametrize(("installed", "cuda"), [("470.57.02", "11.4"), ("450.51.05", "11.0"), ("525.53", "12.0")])
def test_a_driver_that_is_too_old_is_told_with_its_cuda(installed: str, cuda: str) -> None:
    with pytest.raises(ConfigError, match=rf"driver {installed} runs CUDA up to {cuda}, .*CUDA 12\.8.* 525\.60\.13"):
        check_driver(Host(installed, wants_cuda=True), "hosting")


def test_the_remedy_is_the_one_of_the_purpose() -> None:
    old = Host("470.57.02", wants_cuda=True, instance_type="ml.p2.xlarge")
    with pytest.raises(ConfigError, match=r"another instance type, such as ml\.g5\.xlarge"):
        check_driver(old, "training")
    with pytest.raises(ConfigError, match="InferenceAmiVersion al2-ami-sagemaker-inference-gpu-3-1"):
        check_driver(old, "hosting")
    with pytest.raises(ConfigError, match="TransformAmiVersion al2-ami-sagemaker-batch-gpu-535"):
        check_driver(Host("470.57.02", wants_cuda=True, is_batch=True), "hosting")


def test_a_missing_driver_names_the_instance() -> None:
    with pytest.raises(ConfigError, match=r"ml\.g5\.xlarge has a GPU, but no NVIDIA driver reaches the container"):
        check_driver(Host(None, wants_cuda=True, instance_type="ml.g5.xlarge"), "training")


def test_the_message_fits_into_a_failure_reason() -> None:
    for host in (Host(None, wants_cuda=True, instance_type="ml.p4de.24xlarge"), Host("470.57.02", wants_cuda=True)):
        with pytest.raises(ConfigError) as raised:
            check_driver(host, "training")
        assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("instance_type", "wants_cuda"),
    [
        ("ml.g5.xlarge", True),
        ("ml.p5.48xlarge", True),
        ("local_gpu", True),
        ("ml.m5.large", False),
        ("local", False),
        (None, False),
    ],
)
def test_the_instance_type_tells_whether_cuda_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, instance_type: str | None, wants_cuda: bool
) -> None:
    monkeypatch.setattr("classifier.host.GPU_DEVICE", tmp_path / "none")
    assert read_host(instance_type, {}).wants_cuda is wants_cuda


def test_the_device_file_tells_it_too_unless_the_caller_says_no(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "version").write_text(CLOSED)
    monkeypatch.setattr("classifier.host.GPU_DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setattr(driver, "_VERSION_FILE", tmp_path / "version")
    assert read_host(None, {}) == Host("470.57.02", wants_cuda=True)
    assert not read_host(None, {"CUDA_VISIBLE_DEVICES": ""}).wants_cuda


def test_the_cuda_that_messages_name_is_the_one_that_is_installed() -> None:
    try:
        installed = version("nvidia-cuda-runtime-cu12")
    except PackageNotFoundError:
        pytest.skip("this machine's torch has no CUDA")
    assert installed.startswith(f"{driver.CUDA}.")

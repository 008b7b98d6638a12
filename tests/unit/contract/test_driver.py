"""Check of the host's NVIDIA driver."""

from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import pytest

from classifier import host
from classifier.contract import driver
from classifier.contract.driver import HostDriver, check_driver, nvml_driver, parse_version, read_host
from classifier.errors import ConfigError

CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021
GCC version:  gcc version 7.3.1 20180712 (Red Hat 7.3.1-13) (GCC)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs-builder@U22-I3)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


@pytest.mark.parametrize(("text", "expected"), [(CLOSED, "470.57.02"), (OPEN, "550.163.01"), ("", None)])
def test_version_is_parsed_for_both_kernel_modules(text: str, expected: str | None) -> None:
    assert parse_version(text) == expected


@pytest.mark.parametrize("installed", ["525.60.13", "525.85.12", "535.183.01", "550.54.15", "570", "580.65.06"])
def test_drivers_of_cuda_12_and_later_pass(installed: str) -> None:
    check_driver(HostDriver(installed, wants_cuda=True), "training")


def test_host_without_a_gpu_needs_no_driver() -> None:
    check_driver(HostDriver(None, wants_cuda=False), "hosting")


@pytest.mark.parametrize(
    ("installed", "cuda"),
    [("470.57.02", "11.4"), ("450.51.05", "11.0"), ("418.40", "10"), ("525.53", "12.0"), ("525.60.12", "12.0")],
)
def test_old_driver_is_an_error_with_the_cuda_version_it_supports(installed: str, cuda: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"driver {installed} supports CUDA up to {cuda}, .*CUDA 12\.8.* 525\.60\.13"
    ):
        check_driver(HostDriver(installed, wants_cuda=True), "hosting")


def test_remedy_depends_on_the_purpose() -> None:
    old = HostDriver("470.57.02", wants_cuda=True, instance_type="ml.p2.xlarge")
    with pytest.raises(ConfigError, match=r"choose another instance type, such as ml\.g5\.xlarge"):
        check_driver(old, "training")
    with pytest.raises(ConfigError, match="InferenceAmiVersion al2-ami-sagemaker-inference-gpu-3-1"):
        check_driver(old, "hosting")
    with pytest.raises(ConfigError, match="TransformAmiVersion al2-ami-sagemaker-batch-gpu-535"):
        check_driver(HostDriver("470.57.02", wants_cuda=True, is_batch=True), "hosting")


def test_missing_driver_is_an_error_that_names_the_instance_type() -> None:
    with pytest.raises(ConfigError, match=r"ml\.g5\.xlarge has a GPU, but the container has no NVIDIA driver"):
        check_driver(HostDriver(None, wants_cuda=True, instance_type="ml.g5.xlarge"), "training")


def test_message_fits_into_a_failure_reason() -> None:
    for one in (
        HostDriver(None, wants_cuda=True, instance_type="ml.p4de.24xlarge"),
        HostDriver("470.57.02", wants_cuda=True),
    ):
        with pytest.raises(ConfigError) as raised:
            check_driver(one, "training")
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
def test_gpu_instance_types_want_cuda(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, instance_type: str | None, wants_cuda: bool
) -> None:
    monkeypatch.setattr("classifier.host.GPU_DEVICE", tmp_path / "none")
    assert read_host(instance_type, {}).wants_cuda is wants_cuda


def test_device_file_wants_cuda_unless_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "version").write_text(CLOSED)
    monkeypatch.setattr("classifier.host.GPU_DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setattr(driver, "_VERSION_FILE", tmp_path / "version")
    assert read_host(None, {}) == HostDriver("470.57.02", wants_cuda=True)
    for instance_type, hidden in product((None, "ml.g5.xlarge"), ("", "-1")):
        assert not read_host(instance_type, {"CUDA_VISIBLE_DEVICES": hidden}).wants_cuda
    assert read_host(None, {"CUDA_VISIBLE_DEVICES": "0"}).wants_cuda


def test_nvml_is_asked_where_the_file_is_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("classifier.host.GPU_DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setattr(driver, "_VERSION_FILE", tmp_path / "version")
    assert read_host(None, {}, ask_nvml=lambda: "580.65.06") == HostDriver(None, wants_cuda=False)
    (tmp_path / "nvidia0").touch()
    assert read_host(None, {}, ask_nvml=lambda: "580.65.06") == HostDriver("580.65.06", wants_cuda=True)
    (tmp_path / "version").write_text(CLOSED)
    assert read_host(None, {}, ask_nvml=lambda: "580.65.06").version == "470.57.02"


@pytest.mark.skipif(host.has_gpu(), reason="tests the behaviour without a driver")
def test_nvml_without_a_driver_knows_no_version() -> None:
    assert nvml_driver() is None


@pytest.mark.parametrize(("value", "is_batch"), [("true", True), ("True", True), ("false", False), (None, False)])
def test_batch_transform_is_read_from_the_environment(value: str | None, is_batch: bool) -> None:
    assert read_host(None, {} if value is None else {"SAGEMAKER_BATCH": value}).is_batch is is_batch


def test_cuda_version_in_messages_is_the_installed_one() -> None:
    try:
        installed = version("nvidia-cuda-runtime-cu12")
    except PackageNotFoundError:
        pytest.skip("this machine's torch has no CUDA")
    assert installed.startswith(f"{driver.CUDA}.")

"""Check of the host's NVIDIA driver against the image's CUDA version.

The image contains no driver; the container runtime mounts the host's. Without this check, a driver that is missing or
too old would go unnoticed and training would run slowly on the CPU, or fail with an error deep inside torch.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from classifier.errors import ConfigError
from classifier.host import has_gpu, hides_gpus

Purpose = Literal["training", "hosting"]

CUDA = "12.8"
# Minor-version compatibility: any CUDA 12 runs on CUDA 12.0's driver, https://docs.nvidia.com/deploy/cuda-compatibility
MIN_DRIVER = (525, 60, 13)
# The first driver branch that supports each CUDA version, back to the oldest drivers seen on hosts.
_CUDA_BY_BRANCH = {
    450: "11.0",
    460: "11.2",
    470: "11.4",
    510: "11.6",
    515: "11.7",
    525: "12.0",
}
# SageMaker AMIs with a new enough driver.
INFERENCE_AMI = "al2-ami-sagemaker-inference-gpu-3-1"
# Driver 580: Blackwell GPUs need 570 or newer, and the AMI above has 550.
BLACKWELL_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
TRANSFORM_AMI = "al2-ami-sagemaker-batch-gpu-535"

_VERSION_FILE = Path("/proc/driver/nvidia/version")
_BLACKWELL_INSTANCE = re.compile(r"ml\.(?:g7|p6)")
_GPU_INSTANCE = re.compile(r"ml\.[gp]\d|local_gpu$")
_VERSION = re.compile(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s")


@dataclass(frozen=True)
class HostDriver:
    """A host's NVIDIA driver version (None without a driver), and whether the host should have a GPU."""

    version: str | None
    wants_cuda: bool
    instance_type: str | None = None
    is_batch: bool = False


def nvml_driver() -> str | None:
    """Return the driver's version by the NVIDIA Management Library; None without the library or without a driver."""
    try:
        import pynvml  # noqa: PLC0415 - the scripts have no need of it
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def read_host(
    instance_type: str | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    ask_nvml: Callable[[], str | None] = nvml_driver,
) -> HostDriver:
    """Read this host's driver. CUDA is wanted if the instance type has a GPU or NVIDIA's device files exist.

    A ``CUDA_VISIBLE_DEVICES`` that hides all GPUs opts out of CUDA.

    Args:
        ask_nvml: the second source of the version where CUDA is wanted, since some sandboxes hide the first, a file.
    """
    is_hidden = hides_gpus(environment)
    wants_cuda = has_gpu(environment) or (not is_hidden and _GPU_INSTANCE.match(instance_type or "") is not None)
    is_batch = environment.get("SAGEMAKER_BATCH", "").lower() == "true"
    version = _read_driver() or (ask_nvml() if wants_cuda else None)
    return HostDriver(version, wants_cuda, instance_type, is_batch)


def _read_driver() -> str | None:
    try:
        return parse_version(_VERSION_FILE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def parse_version(text: str) -> str | None:
    """Parse the driver version from ``/proc/driver/nvidia/version``, of the open or the proprietary kernel module."""
    found = _VERSION.search(text)
    return found[1] if found else None


def inference_ami(instance_type: str | None) -> str:
    """Return the AMI of an endpoint's hosts whose driver suits both the instance type's GPU and this image."""
    return BLACKWELL_AMI if _BLACKWELL_INSTANCE.match(instance_type or "") else INFERENCE_AMI


def check_driver(host: HostDriver, purpose: Purpose) -> None:
    """Check that the driver suffices for the image's CUDA version if CUDA is wanted.

    Raises:
        ConfigError: the driver is missing or too old; the message says how to get a newer one.
    """
    if not host.wants_cuda:
        return
    if host.version is None:
        where = f"instance type {host.instance_type} has a GPU" if host.instance_type else "the host has a GPU"
        raise ConfigError(
            f"{where}, but the container has no NVIDIA driver; this image (CUDA {CUDA}) needs {_minimum()}: "
            f"{_remedy(host, purpose)}; to run on the CPU, set CUDA_VISIBLE_DEVICES to an empty string"
        )
    if _numbers(host.version) < MIN_DRIVER:
        raise ConfigError(
            f"the host's NVIDIA driver {host.version} supports CUDA up to {_newest_cuda(host.version)}, but this image "
            f"(CUDA {CUDA}) needs {_minimum()}: {_remedy(host, purpose)}"
        )


def _minimum() -> str:
    return f"driver {'.'.join(map(str, MIN_DRIVER))} or newer"


def _remedy(host: HostDriver, purpose: Purpose) -> str:
    if purpose == "training":
        return (
            "on SageMaker, choose another instance type, such as ml.g5.xlarge or ml.g4dn.xlarge (a training job cannot "
            "choose its driver); on your own machine, update the driver and start the container with --gpus all"
        )
    if host.is_batch:
        return f"create the transform job with TransformAmiVersion {TRANSFORM_AMI}"
    return (
        f"create the endpoint with InferenceAmiVersion {inference_ami(host.instance_type)}; on your own machine, "
        "update the driver and start the container with --gpus all"
    )


def _newest_cuda(driver: str) -> str:
    branch = _numbers(driver)[0]
    known = [cuda for first, cuda in sorted(_CUDA_BY_BRANCH.items()) if first <= branch]
    return known[-1] if known else "10"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

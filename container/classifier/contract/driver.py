"""The host's NVIDIA driver: whether it is there where CUDA was asked for, and new enough for this image's CUDA.

The image ships no driver; the host's is mounted into it. One that is too old would otherwise show as a training that is
slow on the CPU, or as an error deep inside torch.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from classifier.errors import ConfigError
from classifier.host import has_gpu

Purpose = Literal["training", "hosting"]

CUDA = "12.8"
# Any CUDA 12 runs on the first driver of CUDA 12: https://docs.nvidia.com/deploy/cuda-compatibility
MIN_DRIVER = (525, 60, 13)
# The first driver branch of each CUDA, as far back as hosts have been seen.
_CUDA_BY_BRANCH = {
    450: "11.0",
    460: "11.2",
    470: "11.4",
    510: "11.6",
    515: "11.7",
    525: "12.0",
}
_NEW_ENOUGH_AMI = "al2-ami-sagemaker-inference-gpu-3-1"
_NEW_ENOUGH_BATCH_AMI = "al2-ami-sagemaker-batch-gpu-535"

_VERSION_FILE = Path("/proc/driver/nvidia/version")
_GPU_INSTANCE = re.compile(r"ml\.[gp]\d|local_gpu$")
_VERSION = re.compile(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s")


@dataclass(frozen=True)
class Host:
    """What a host shows of its GPU: the driver's version, or None without one; whether CUDA was asked for."""

    driver: str | None
    wants_cuda: bool
    instance_type: str | None = None
    is_batch: bool = False


def read_host(instance_type: str | None = None, environment: Mapping[str, str] = os.environ) -> Host:
    """This host. An instance type that has a GPU asks for CUDA, and so do NVIDIA's device files.

    An empty ``CUDA_VISIBLE_DEVICES`` says that CUDA is not wanted.
    """
    is_hidden = environment.get("CUDA_VISIBLE_DEVICES") == ""
    wants_cuda = has_gpu(environment) or (not is_hidden and _GPU_INSTANCE.match(instance_type or "") is not None)
    return Host(_read_driver(), wants_cuda, instance_type, environment.get("SAGEMAKER_BATCH", "").lower() == "true")


def _read_driver() -> str | None:
    try:
        return parse_version(_VERSION_FILE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def parse_version(text: str) -> str | None:
    """The driver's version in the text of ``/proc/driver/nvidia/version``, of the open kernel module or the closed."""
    found = _VERSION.search(text)
    return found[1] if found else None


def check_driver(host: Host, purpose: Purpose) -> None:
    """
    Raises:
        ConfigError: CUDA was asked for, and the driver is missing or too old; the message says what would do.
    """
    if not host.wants_cuda:
        return
    if host.driver is None:
        where = f"instance type {host.instance_type} has a GPU" if host.instance_type else "there is a GPU"
        raise ConfigError(
            f"{where}, but no NVIDIA driver reaches the container, and this image (CUDA {CUDA}) needs {_minimum()}: "
            f"{_remedy(host, purpose)}; to use the CPU alone, set CUDA_VISIBLE_DEVICES to nothing"
        )
    if _numbers(host.driver) < MIN_DRIVER:
        raise ConfigError(
            f"the host's NVIDIA driver {host.driver} runs CUDA up to {_newest_cuda(host.driver)}, and this image "
            f"(CUDA {CUDA}) needs {_minimum()}: {_remedy(host, purpose)}"
        )


def _minimum() -> str:
    return f"driver {'.'.join(map(str, MIN_DRIVER))} or newer"


def _remedy(host: Host, purpose: Purpose) -> str:
    if purpose == "training":
        return (
            "on SageMaker a training's driver can't be chosen, so take another instance type, such as ml.g5.xlarge or "
            "ml.g4dn.xlarge; on your own machine update the driver, and start the container with --gpus all"
        )
    if host.is_batch:
        return f"create the transform job with TransformAmiVersion {_NEW_ENOUGH_BATCH_AMI}"
    return (
        f"create the endpoint with InferenceAmiVersion {_NEW_ENOUGH_AMI}; on your own machine update the driver, and "
        "start the container with --gpus all"
    )


def _newest_cuda(driver: str) -> str:
    branch = _numbers(driver)[0]
    known = [cuda for first, cuda in sorted(_CUDA_BY_BRANCH.items()) if first <= branch]
    return known[-1] if known else "10"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

"""The GPU that torch uses for this process: whether it can, which one, and the free memory of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from classifier.errors import ConfigError

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[a-z]?")


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it: its index, its name and its compute capability, such as (8, 0)."""

    index: int
    name: str
    capability: tuple[int, int]

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return torch.device("cuda", self.index)


def find_gpu(local_rank: int = 0) -> Gpu | None:
    """Return the GPU of one of the host's ranks; None where torch sees none. More ranks than GPUs share them.

    Raises:
        ConfigError: this build of torch has no code for the GPU.
    """
    if not torch.cuda.is_available():
        return None
    index = local_rank % torch.cuda.device_count()
    gpu = Gpu(index, torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index))
    if not can_run(gpu.capability, torch.cuda.get_arch_list()):
        raise ConfigError(
            f"{gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]}, for which torch "
            f"{torch.__version__} has no code (only {' '.join(torch.cuda.get_arch_list())}): choose another instance "
            "type; to run on the CPU, set CUDA_VISIBLE_DEVICES to an empty string"
        )
    return gpu


def can_run(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether code for one of the architectures runs on a GPU of this compute capability.

    Machine code (``sm_86``) runs on the same major version from its minor version on; intermediate code
    (``compute_90``) on every later GPU.
    """
    for kind, major, minor in _ARCHITECTURE.findall(" ".join(architectures)):
        built = int(major), int(minor)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def check_gpu_is_usable() -> None:
    """Check that torch sees the GPU that this host should have, or training would run on its CPU at a GPU's price.

    Raises:
        ConfigError: it does not; the message has torch's reason.
    """
    if torch.cuda.is_available():
        return
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
    else:
        reason = "torch.cuda.is_available() is false"
    raise ConfigError(
        f"this host has a GPU, and torch {torch.__version__} can't use it: {reason}. On your own machine, start the "
        "container with --gpus all; to run on the CPU, set CUDA_VISIBLE_DEVICES to an empty string"
    )


def free_gpu_memory() -> int:
    """Return the bytes of the current GPU's memory that an allocation can get, after returning what torch caches."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]

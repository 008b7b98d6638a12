"""Device and number format of a training."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from classifier.errors import ConfigError
from classifier.host import cpu_has_bf16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The device of all tensors, and the type in which autocast computes matrix products: fp32, bf16 or fp16."""

    device: torch.device
    name: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager for a forward pass; does nothing in fp32."""
        return torch.autocast(self.device.type, _DTYPES[self.name], enabled=self.name != "fp32")

    @property
    def needs_scaling(self) -> bool:
        """Whether the loss is scaled up, without which gradients underflow in fp16."""
        return self.name == "fp16"


def choose_precision(name: str, local_rank: int = 0) -> Precision:
    """Return the GPU of one of the host's ranks, or the CPU without one, and the number format.

    ``auto`` is bf16 where the hardware multiplies it natively, and fp32 elsewhere.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if name == "auto":
        return Precision(device, "bf16" if _has_bf16(device) else "fp32")
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32")
    return Precision(device, name)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()

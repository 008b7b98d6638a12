"""The device and the arithmetic of a training."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from classifier.errors import ConfigError
from classifier.host import cpu_has_bf16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Where tensors live, and the type that autocast computes matrix products in."""

    device: torch.device
    name: str

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, _DTYPES[self.name], enabled=self.name != "fp32")

    @property
    def needs_scaling(self) -> bool:
        """Gradients of fp16 vanish unless the loss is scaled up."""
        return self.name == "fp16"


def choose_precision(wanted: str) -> Precision:
    """The first GPU, or else the CPU; ``auto`` is bf16 where the hardware multiplies it, and fp32 elsewhere.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if wanted == "auto":
        return Precision(device, "bf16" if _has_bf16(device) else "fp32")
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32")
    return Precision(device, wanted)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()

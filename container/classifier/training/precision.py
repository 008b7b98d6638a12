"""Device and number format of a training."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from classifier.engine.gpu import Gpu, check_gpu_is_usable, find_gpu
from classifier.errors import ConfigError
from classifier.host import cpu_has_bf16, tune_malloc

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Compute capabilities: tensor cores for fp16 (V100, T4), then for bf16 (A100, A10G), which older GPUs only emulate.
_FP16_CORES, _BF16_CORES = (7, 0), (8, 0)


@dataclass(frozen=True)
class Precision:
    """The device of all tensors, and the type in which autocast computes matrix products: fp32, bf16 or fp16.

    Attributes:
        is_strict: fp32 without the shortened TF32 that a training's fp32 may use on a GPU.
    """

    device: torch.device
    name: str
    is_strict: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager for a forward pass; does nothing in fp32, and if strict turns TF32 off."""
        if self.is_strict and self.device.type == "cuda":
            return _without_tf32()
        return torch.autocast(self.device.type, _DTYPES[self.name], enabled=self.name != "fp32")

    @property
    def needs_scaling(self) -> bool:
        """Whether the loss is scaled up, without which gradients underflow in fp16."""
        return self.name == "fp16"

    def strict(self) -> "Precision":
        """Return full fp32 on the same device."""
        return Precision(self.device, "fp32", is_strict=True)


def choose_precision(name: str, local_rank: int = 0, *, wants_gpu: bool = False) -> Precision:
    """Return the GPU of one of the host's ranks, or the CPU without one, and the number format.

    Args:
        name: the hyperparameter ``precision``; ``auto`` is the fastest format that this hardware multiplies natively.
        wants_gpu: whether the host should have a GPU.

    Raises:
        ConfigError: the hardware does not support the format, or torch can't use the host's GPU.
    """
    if wants_gpu:
        check_gpu_is_usable()
    gpu = find_gpu(local_rank)
    return Precision(gpu.device if gpu else torch.device("cpu"), format_for(name, gpu))


def format_for(name: str, gpu: Gpu | None) -> str:
    """Return the number format of the hyperparameter ``precision`` on a GPU, or on this CPU without one.

    Raises:
        ConfigError: fp16 on a CPU, or bf16 on a GPU that only emulates it.
    """
    if gpu is None:
        if name == "fp16":
            raise ConfigError("precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32")
        return ("bf16" if cpu_has_bf16() else "fp32") if name == "auto" else name
    if name == "auto":
        if gpu.capability >= _BF16_CORES:
            return "bf16"
        return "fp16" if gpu.capability >= _FP16_CORES else "fp32"
    if name == "bf16" and gpu.capability < _BF16_CORES:
        raise ConfigError(
            f"precision=bf16 needs a GPU of compute capability 8.0 or newer (A100, A10G, L4), and {gpu.name} has "
            f"{gpu.capability[0]}.{gpu.capability[1]}, which only emulates it slowly: use auto or fp16"
        )
    return name


def tune_for_training(precision: Precision) -> None:
    """Tune this process for a training: malloc on a CPU; on a GPU the current device, TF32 and cuDNN's search.

    cuDNN's search measures the algorithms once for each shape, and a training has two or three: its batches differ in
    size by one at most. It may choose other algorithms in another run, so deterministic algorithms exclude it.
    """
    if precision.device.type == "cpu":
        tune_malloc("training")
        return
    torch.cuda.set_device(precision.device)
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    _allow_tf32(True)


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision() != "highest"
    _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: bool) -> None:
    # Both through torch's older settings: it refuses to read one that was set through the other kind.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed

"""What goes into and out of the modules of a network, seen during one forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from classifier.debugging.hook import TensorHook

_RELUS = (nn.ReLU, nn.ReLU6)


class Activations:
    """Hooks on the modules whose tensors are wanted, there for the length of one forward pass only.

    Left in place they would cost every step, and travel into copies and exports of the module.
    """

    def __init__(self, hook: TensorHook, network: nn.Module) -> None:
        self._hook = hook
        names = {module: name for name, module in network.named_modules()}
        self._names = {**names, network: type(network).__name__}
        self._handles: list[RemovableHandle] = []

    def watch(self) -> None:
        """Save what the coming forward pass is wanted for."""
        for module, name in self._names.items():
            if self._hook.wants(f"{name}_input_0"):
                self._handles.append(module.register_forward_pre_hook(self._save_inputs(name)))
            if self._hook.wants(f"{name}_output_0"):
                self._handles.append(module.register_forward_hook(self._save_outputs(name)))
            if isinstance(module, _RELUS) and self._hook.wants(f"activity/{name}_output_0"):
                self._handles.append(module.register_forward_hook(self._save_activity(name)))

    def leave(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _save_inputs(self, name: str) -> Callable[..., None]:
        # Before the pass, since many a ReLU works in place.
        return lambda _, inputs: self._hook.save_inputs(name, inputs)

    def _save_outputs(self, name: str) -> Callable[..., None]:
        return lambda _, inputs, outputs: self._hook.save_outputs(name, outputs)  # noqa: ARG005

    def _save_activity(self, name: str) -> Callable[..., None]:
        return lambda _, inputs, outputs: self._hook.save_outputs(f"activity/{name}", _activity(outputs))  # noqa: ARG005


@torch.no_grad()
def _activity(outputs: Any) -> Tensor:
    """How often each channel, or each unit, of a ReLU is active: shares (C,) of batch and places."""
    active = (outputs.detach() > 0).float()
    return active.mean(dim=[place for place in range(active.ndim) if place != 1]) if active.ndim > 1 else active

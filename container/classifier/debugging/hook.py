"""smdebug's hook, told of each tensor instead of registered on the module.

A registered module can't be copied, exported or compiled any more, and breaks under bf16. This hook leaves no trace in
the module, and writes nothing but tensors.
"""

import atexit
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from classifier.debugging.library import ModeKeys, isolated

with isolated():
    from smdebug.core.json_config import add_collections_to_manager, collect_hook_config_params, get_include_collections
    from smdebug.core.save_config import SaveConfig
    from smdebug.core.utils import error_handling_agent
    from smdebug.pytorch.hook import Hook, profiler_config_parser
    from smdebug.pytorch.singleton_utils import del_hook
    from smdebug.pytorch.utils import get_reduction_of_data
_FOLDERS = ("collections", "events", "index", "tensorboard")
_FILES = ("claim.smd", "training_job_end.ts")


class TensorHook(Hook):
    """Writes the tensors that its collections want. ``saving``: whether they want any at this step."""

    saving = False

    def on_step_begin(self) -> bool:
        """Count a step, and return whether any tensor of it is to be saved."""
        if not self.prepared_collections:
            self._prepare_collections()
        self._increment_step()
        self.saving = bool(self._get_collections_to_save_for_step())
        return self.saving

    def wants(self, name: str) -> bool:
        """Whether a tensor of this name is to be saved at this step."""
        return bool(self._get_collections_with_tensor(name) & self._get_collections_to_save_for_step())

    def save(self, name: str, tensor: Tensor) -> None:
        """Write a tensor if it is wanted; bf16 and fp16 as float32."""
        if self.wants(name):
            self._initialize_writers(only_initialize_if_missing=True)
            self._save_for_tensor(name, tensor)
            self.last_saved_step = self.step

    def save_inputs(self, module: str, inputs: Any) -> None:
        self._initialize_writers(only_initialize_if_missing=True)
        self._write_inputs(module, inputs)

    def save_outputs(self, module: str, outputs: Any) -> None:
        """A module that is called again in the same step adds ``_output_1`` to its ``_output_0``."""
        self._initialize_writers(only_initialize_if_missing=True)
        self._write_outputs(module, outputs)

    def on_step_end(self) -> None:
        """Put what was saved on the disk, for readers to see."""
        if self.saving and self.writer is not None:
            self._close_writers()
            self.export_collections()
            self.exported_collections = True
        self.saving = False

    def _initialize_to_last_saved_state(self) -> None:
        """smdebug would look for its state among the checkpoints."""

    def _write_state(self) -> None:
        """smdebug would write its state among the checkpoints."""

    @staticmethod
    def _make_numpy_array(tensor_value: Any) -> Any:
        if not isinstance(tensor_value, Tensor):
            return np.asarray(tensor_value)
        return _readable(tensor_value).cpu().numpy()

    @staticmethod
    def _get_reduction_of_data(reduction_name: str, tensor_value: Any, tensor_name: str, abs: bool) -> Any:
        if isinstance(tensor_value, Tensor):
            tensor_value = _readable(tensor_value)
            if not tensor_value.is_floating_point():
                tensor_value = tensor_value.float()
            if reduction_name == "variance":
                # As numpy computes it when the whole tensor was saved; and one value alone has a variance, 0.
                return torch.var(tensor_value.abs() if abs else tensor_value, correction=0)
        return get_reduction_of_data(reduction_name, tensor_value, tensor_name, abs)


def _readable(tensor: Tensor) -> Tensor:
    """numpy knows no bf16."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def open_hook(folder: Path, tensorboard: Path | None, config: dict[str, Any]) -> TensorHook:
    """A hook that saves into ``folder`` as ``debughookconfig.json`` says; what an earlier run left there is removed.

    To be called after the process group of several ranks was made: the rank is part of the files' names.

    Raises:
        Exception: the configuration is not one that smdebug understands.
    """
    _clear(folder)
    try:
        return _build(folder, tensorboard, config)
    finally:
        # Whatever became of it, it is not to write when the process ends: what was saved is on the disk already.
        if error_handling_agent.hook is not None:
            atexit.unregister(error_handling_agent.hook._cleanup)
        atexit.unregister(profiler_config_parser.stop_post_hook_close_python_profiling)


def _build(folder: Path, tensorboard: Path | None, config: dict[str, Any]) -> TensorHook:
    with isolated():
        parameters = collect_hook_config_params(config)
        hook = TensorHook(
            out_dir=str(folder),
            export_tensorboard=tensorboard is not None,
            tensorboard_dir=str(tensorboard) if tensorboard is not None else None,
            reduction_config=parameters["reduction_config"],
            save_config=SaveConfig.from_dict(parameters["save_config_modes"], {}),
            include_regex=parameters["include_regex"],
            include_collections=get_include_collections(config),
            save_all=parameters.get("save_all", False),
            include_workers=parameters.get("include_workers", "one"),
        )
        add_collections_to_manager(hook.collection_manager, config, parameters)
    # It swallows errors of its own constructor.
    if error_handling_agent.disable_smdebug:
        raise RuntimeError("smdebug could not be set up")
    return hook


def close_hook(hook: TensorHook) -> None:
    """Mark the end of the tensors, and leave nothing of smdebug behind in this process."""
    hook.on_step_end()
    hook.close()
    del_hook()


def mode_of(name: str) -> ModeKeys:
    return {"train": ModeKeys.TRAIN, "validation": ModeKeys.EVAL, "test": ModeKeys.PREDICT}[name]


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


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

"""smdebug's hook, called with each tensor instead of registered on the module.

A module with smdebug's hook registered can no longer be copied, exported or compiled, and fails under bf16. This hook
leaves the module unchanged and writes only tensors.
"""

import atexit
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from classifier.callbacks import Mode
from classifier.debugging.facts import FACTS_FILE
from classifier.debugging.library import ModeKeys, isolated
from classifier.debugging.records import write_step
from classifier.debugging.rules.inputs import DEVIATIONS, MEANS

with isolated():
    from smdebug.core.json_config import add_collections_to_manager, collect_hook_config_params, get_include_collections
    from smdebug.core.save_config import SaveConfig
    from smdebug.core.utils import error_handling_agent
    from smdebug.pytorch.hook import Hook, profiler_config_parser
    from smdebug.pytorch.singleton_utils import del_hook
    from smdebug.pytorch.utils import get_reduction_of_data
MODES: dict[Mode, ModeKeys] = {"train": ModeKeys.TRAIN, "validation": ModeKeys.EVAL, "test": ModeKeys.PREDICT}
_MAX_KEPT_BYTES = 64 << 20  # of tensors that need not be read back to be judged
_FOLDERS = ("collections", "events", "index", "tensorboard")
_END_MARK = "training_job_end.ts"
_FILES = ("claim.smd", _END_MARK, FACTS_FILE)


# The step in the names of folders of events, and of files of the index and of events.
_STEP = re.compile(r"(\d{12})(_.+)?")


class TensorHook(Hook):
    """Writer of the tensors that its collections select. ``saving``: whether they select any at the current step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.saving = False
        self._tensors: list[tuple[str, np.ndarray]] = []
        self._shapes: list[tuple[str, tuple[int, ...]]] = []
        self._figures: dict[str, dict[tuple[str, bool], float]] = {}
        self._kept: dict[int, tuple[dict[str, np.ndarray], float]] = {}
        self._kept_bytes = 0
        self._num_exported = -1

    def on_step_begin(self) -> bool:
        """Count a step and return whether any of its tensors is to be saved."""
        if not self.prepared_collections:
            self._prepare_collections()
        self._increment_step()
        self.saving = bool(self._get_collections_to_save_for_step())
        return self.saving

    def wants(self, name: str) -> bool:
        """Return whether a tensor is to be saved at the current step."""
        return bool(self._get_collections_with_tensor(name) & self._get_collections_to_save_for_step())

    def save(self, name: str, tensor: Tensor) -> None:
        """Write a tensor if it is to be saved now; bf16 and fp16 as float32."""
        if self.wants(name):
            self._save_for_tensor(name, tensor)
            self.last_saved_step = self.step

    def save_many(self, tensors: Mapping[str, Tensor]) -> None:
        """Write those tensors that are to be saved now. All their reductions are computed together."""
        wanted = {name: _as_numpy_type(tensor) for name, tensor in tensors.items() if self.wants(name)}
        self._figures = _reduce(wanted) if any(map(self._is_reduced, wanted)) else {}
        for name, tensor in wanted.items():
            self.save(name, tensor)
        self._figures = {}

    def take(self) -> dict[int, tuple[dict[str, np.ndarray], float]]:
        """Return the tensors of the last steps, and when they were written, by global step; each is returned once."""
        taken, self._kept, self._kept_bytes = self._kept, {}, 0
        return taken

    def save_inputs(self, module: str, inputs: Any) -> None:
        """Write the inputs of a call of a module."""
        self._write_inputs(module, inputs)

    def save_outputs(self, module: str, outputs: Any) -> None:
        """Write the outputs of a call of a module; the second call within a step gets ``_output_1``."""
        self._write_outputs(module, outputs)

    def on_step_end(self) -> None:
        """Write the step's files, so that readers see it."""
        if self.saving and (self._tensors or self._shapes):
            mode = (self.mode, self.mode_steps[self.mode])
            written_s = write_step(Path(self.out_dir), self.step, self.worker, mode, self._tensors, self._shapes)
            self._keep(dict(self._tensors), written_s)
            self._tensors, self._shapes = [], []
            self._close_given_writer_map(self.tb_writers)
            # Its names of tensors grow while each mode sees its first steps.
            number = sum(len(one.tensor_names) for one in self._collections_to_save)
            if number != self._num_exported:
                self.export_collections()
            self._num_exported, self.exported_collections = number, True
            self._write_scalars()
        self.saving = False

    def _keep(self, tensors: dict[str, np.ndarray], written_s: float) -> None:
        size = sum(value.nbytes for value in tensors.values())
        if self._kept_bytes + size <= _MAX_KEPT_BYTES:
            self._kept[self.step] = tensors, written_s
            self._kept_bytes += size

    def steps(self) -> dict[str, int]:
        """Return the number of the last step of all (``GLOBAL``) and of each mode, for :func:`open_hook`."""
        return {mode.name: step for mode, step in self.mode_steps.items()}

    def go_on(self, steps: Mapping[str, int]) -> None:
        """Count on from :meth:`steps` of an earlier hook."""
        self.mode_steps = {ModeKeys[name]: step for name, step in steps.items()}
        self.step = self.mode_steps[ModeKeys.GLOBAL]

    def _initialize_to_last_saved_state(self) -> None:
        """Do nothing; smdebug would look for its state in the checkpoint folder."""

    def _write_state(self) -> None:
        """Do nothing; smdebug would write its state to the checkpoint folder."""

    def _is_reduced(self, name: str) -> bool:
        kinds = ("reductions", "norms", "abs_reductions", "abs_norms")
        configs = [one.reduction_config for one in self._get_collections_with_tensor(name)]
        return any(getattr(config, kind) for config in configs for kind in kinds)

    def _log_save(self, tensor_name: str, save_collections: Any) -> None:
        """Do nothing; smdebug would format a line for each tensor, at a level that is never shown."""

    def _write_raw_tensor_simple(
        self,
        tensor_name: str,
        tensor_value: Any,
        tensor_ref: Any = None,  # noqa: ARG002 - the signature is smdebug's
        timestamp: Any = None,  # noqa: ARG002 - smdebug's
    ) -> None:
        """Keep a tensor until the step ends, when all are written at once."""
        value = self._make_numpy_array(tensor_value)
        if value.size:
            # A copy, since the memory is the tensor's own.
            self._tensors.append((tensor_name, value.copy()))

    def _write_shape(
        self,
        tensor_name: str,
        tensor_value: Any,
        save_collections: Any,
        tensor_ref: Any = None,  # noqa: ARG002 - smdebug's
    ) -> None:
        if any(one.reduction_config.save_shape for one in save_collections):
            self._shapes.append((tensor_name, tuple(tensor_value.shape)))

    def _write_reduction(
        self, tensor_name: str, tensor_value: Any, reduction_name: str, abs: bool, tensor_ref: Any = None
    ) -> None:
        figure = self._figures.get(tensor_name, {}).get((reduction_name, abs))
        if figure is None:
            super()._write_reduction(tensor_name, tensor_value, reduction_name, abs, tensor_ref)
        else:
            name = self._get_reduction_tensor_name(tensor_name, reduction_name, abs)
            self._tensors.append((name, np.array(figure, dtype=np.float32)))

    @staticmethod
    def _make_numpy_array(tensor_value: Any) -> Any:
        if not isinstance(tensor_value, Tensor):
            return np.asarray(tensor_value)
        return _as_numpy_type(tensor_value).cpu().numpy()

    @staticmethod
    def _get_reduction_of_data(reduction_name: str, tensor_value: Any, tensor_name: str, abs: bool) -> Any:
        if isinstance(tensor_value, Tensor):
            tensor_value = _as_numpy_type(tensor_value)
            if not tensor_value.is_floating_point():
                tensor_value = tensor_value.float()
            if reduction_name == "variance":
                # The population variance, as numpy computes it from a full tensor; that of a single value is 0.
                return torch.var(tensor_value.abs() if abs else tensor_value, correction=0)
        return get_reduction_of_data(reduction_name, tensor_value, tensor_name, abs)


def norms(tensors: Sequence[Tensor], order: float = 2) -> list[Tensor]:
    """Return the norm of each tensor, in one pass on a GPU."""
    return list(torch._foreach_norm(list(tensors), order))  # pyright: ignore[reportPrivateImportUsage]


@torch.no_grad()
def _reduce(tensors: Mapping[str, Tensor]) -> dict[str, dict[tuple[str, bool], float]]:
    """Return mean, variance, mean and largest absolute value and l2 norm by name, and by smdebug's (name, absolute).

    A few passes over all tensors, and one copy from the device, instead of several for each tensor.
    """
    values = [tensor.float() for tensor in tensors.values()]
    sizes = [max(1, value.numel()) for value in values]
    means = [value.mean() for value in values]
    deviations = norms([value - mean for value, mean in zip(values, means, strict=True)])
    sizes_of_values = [norms(values, order) for order in (1, 2, inf)]
    table = torch.stack([torch.stack(row) for row in (means, deviations, *sizes_of_values)]).tolist()
    return {
        name: {
            ("mean", False): mean,
            ("variance", False): deviation**2 / size,
            ("mean", True): l1 / size,
            ("max", True): largest,
            ("l2", False): l2,
        }
        for name, size, mean, deviation, l1, l2, largest in zip(tensors, sizes, *table, strict=True)
    }


def _as_numpy_type(tensor: Tensor) -> Tensor:
    """Convert 16-bit floats to float32, since numpy has no bf16."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def open_hook(
    folder: Path, tensorboard: Path | None, config: dict[str, Any], steps: Mapping[str, int] | None = None
) -> TensorHook:
    """Return a hook that saves to ``folder``, after removing the tensors of an earlier run.

    Call it after the process group was initialized, since file names contain the rank.

    Args:
        config: the content of ``debughookconfig.json``.
        steps: of :meth:`TensorHook.steps`, to go on after them; only later tensors are removed then.

    Raises:
        Exception: smdebug does not accept the configuration.
    """
    if steps is None:
        _clear(folder)
    else:
        _cut(folder, steps["GLOBAL"])
    try:
        hook = _build(folder, tensorboard, config)
        if steps is not None:
            hook.go_on(steps)
        return hook
    finally:
        # The hook must not write at exit, even after an error here: all saved tensors are on the disk already.
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
    # smdebug suppresses errors in its own constructor.
    if error_handling_agent.disable_smdebug:
        raise RuntimeError("smdebug failed to initialize its hook")
    return hook


def close_hook(hook: TensorHook) -> None:
    """Mark the tensors as complete and remove smdebug's global hook from the process."""
    hook.on_step_end()
    hook.close()
    # On the platform, smdebug leaves this to the platform, which writes it to S3 only; a local job's reader would wait.
    Path(hook.out_dir, _END_MARK).touch()
    del_hook()


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _cut(folder: Path, last: int) -> None:
    """Remove the tensors of all steps after the last that a resumed training has behind it."""
    for path in (*(folder / "events").glob("*"), *(folder / "index").glob("*/*")):
        match = _STEP.match(path.name)
        if match and int(match[1]) > last:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


_RELUS = (nn.ReLU, nn.ReLU6)


class Activations:
    """Forward hooks on the modules whose tensors are to be saved, registered for a single forward pass.

    Permanent hooks would slow down every step, and be copied and exported with the module.
    """

    def __init__(self, hook: TensorHook, network: nn.Module, module: nn.Module) -> None:
        """
        Args:
            network: contains the layers.
            module: gets the batches, pixels or features.
        """
        self._hook, self._module = hook, module
        names = {module: name for name, module in network.named_modules()}
        self._names = {**names, network: type(network).__name__}
        self._handles: list[RemovableHandle] = []

    def register(self) -> bool:
        """Register the hooks that the next forward pass needs, and return whether there are any."""
        if self._hook.wants(MEANS) or self._hook.wants(DEVIATIONS):
            self._handles.append(self._module.register_forward_pre_hook(self._save_statistics))
        for module, name in self._names.items():
            if self._hook.wants(f"{name}_input_0"):
                self._handles.append(module.register_forward_pre_hook(self._save_inputs(name)))
            if self._hook.wants(f"{name}_output_0"):
                self._handles.append(module.register_forward_hook(self._save_outputs(name)))
            if isinstance(module, _RELUS) and self._hook.wants(f"activity/{name}_output_0"):
                self._handles.append(module.register_forward_hook(self._save_activity(name)))

        return bool(self._handles)

    def remove(self) -> None:
        """Remove all registered hooks."""
        while self._handles:
            self._handles.pop().remove()

    def _save_inputs(self, name: str) -> Callable[..., None]:
        # Before the call, since ReLUs often work in place.
        return lambda _, inputs: self._hook.save_inputs(name, inputs)

    def _save_outputs(self, name: str) -> Callable[..., None]:
        return lambda _, inputs, outputs: self._hook.save_outputs(name, outputs)  # noqa: ARG005

    @torch.no_grad()
    def _save_statistics(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Save mean and standard deviation of each photo's pixels, in 0 to 1, or of its features."""
        values = inputs[0].detach().flatten(1).float() / (255 if inputs[0].ndim == 4 else 1)
        deviations, means = torch.std_mean(values, dim=1, correction=0)
        self._hook.save(MEANS, means)
        self._hook.save(DEVIATIONS, deviations)

    def _save_activity(self, name: str) -> Callable[..., None]:
        return lambda _, inputs, outputs: self._hook.save_outputs(f"activity/{name}", _activity(outputs))  # noqa: ARG005


@torch.no_grad()
def _activity(outputs: Any) -> Tensor:
    """Share of positive outputs by channel or unit: float32 (C,), over the batch and all positions."""
    active = (outputs.detach() > 0).float()
    return active.mean(dim=[axis for axis in range(active.ndim) if axis != 1]) if active.ndim > 1 else active

"""Settings of the debugger: which tensors to save, when and where.

From ``debughookconfig.json``, or default collections that depend on the training's length.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from classifier.callbacks import TrainingContext
from classifier.contract.config import HookConfig, TrainingConfig
from classifier.contract.paths import Paths

MAX_LOSSES = 400  # saves of the loss in one training
MAX_TENSORS = 25  # saves of weights and gradients
MAX_PREDICTIONS = 100  # saves of the logits of training steps
_MAX_BYTES = 200 * 1024**2  # up to this size, weights and gradients are saved in full; above, as reductions
_REDUCTIONS = "mean,variance,abs_mean,abs_max,l2_norm"
_NEVER = {"start_step": "1000000000"}
_NO_HOOK = HookConfig.model_validate({})
_ACTIVATIONS = {"relu_input": (nn.ReLU, nn.ReLU6), "tanh_input": (nn.Tanh,), "sigmoid_input": (nn.Sigmoid,)}


@dataclass(frozen=True, kw_only=True)
class DebuggerSettings:
    """Settings of the debugger for one job.

    Attributes:
        folder: where tensors are saved.
        tensorboard: where TensorBoard events are written; None for none.
        hook: the content of ``debughookconfig.json``.
        own_collections: save :func:`default_collections` if the configuration has none. Otherwise smdebug saves only
            the losses, every 500 steps.
        stop: rules that end the training when they fire.
        hyperparameters: of the job; the rules' advice leaves out what they set.
    """

    folder: Path
    tensorboard: Path | None = None
    hook: HookConfig | None = None
    own_collections: bool = True
    stop: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def describe(self, context: TrainingContext) -> dict[str, Any]:
        """Return the hook's configuration for a training, in the format of ``debughookconfig.json``."""
        hook = self.hook or _NO_HOOK
        collections = [
            {"CollectionName": item.collection_name, "CollectionParameters": _typed(item.collection_parameters)}
            for item in hook.collection_configurations
        ]
        if self.own_collections and not collections:
            collections = default_collections(context)
        return {"HookParameters": _typed(hook.hook_parameters), "CollectionConfigurations": collections or None}


def read_settings(config: TrainingConfig, paths: Paths) -> DebuggerSettings:
    """Return the settings of a job that requests the debugger."""
    parameters, hook = config.hyperparameters, config.hook
    # The platform uploads the hook's folder; without a hook, the tensors have to come home in output.tar.gz.
    folder = paths.relocate(hook.local_path) if hook else paths.output_data / "tensors"
    return DebuggerSettings(
        folder=folder,
        tensorboard=_tensorboard(hook, folder, paths),
        hook=hook,
        stop=tuple(parameters.debug_stop.split(",")) if parameters.debug_stop else (),
        own_collections=hook is None or parameters.debug,
        hyperparameters=parameters.model_dump(),
    )


def _tensorboard(hook: HookConfig | None, folder: Path, paths: Paths) -> Path | None:
    """The folder named by the platform's ``tensorboardoutputconfig.json``, else by the hook's parameters."""
    file = paths.config / "tensorboardoutputconfig.json"
    if file.is_file():
        path = json.loads(file.read_text(encoding="utf-8")).get("LocalPath", "/opt/ml/output/tensorboard")
        return paths.relocate(Path(path))
    parameters = hook.hook_parameters if hook else {}
    if "tensorboard_dir" in parameters:
        return paths.relocate(Path(parameters["tensorboard_dir"]))
    is_exported = parameters.get("export_tensorboard", "false").lower() in ("true", "1")
    return folder / "tensorboard" if is_exported else None


def _typed(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Parse the flags: smdebug accepts only booleans for them, but the platform writes strings."""
    flags = {name for name in ("save_raw_tensor", "save_shape") if name in parameters}
    return {name: str(value).lower() in ("true", "1") if name in flags else value for name, value in parameters.items()}


def default_collections(context: TrainingContext) -> list[dict[str, Any]]:
    """Return collections with what the rules need, in the format of ``debughookconfig.json``.

    Losses are saved at up to 400 steps of the training; weights, biases and gradients at up to 25, in full if they are
    small, else as reductions; logits and labels at up to 100 and at every evaluation.
    """
    total = context.steps_per_epoch * context.num_epochs
    loss_interval, tensor_interval = -(-total // MAX_LOSSES), str(-(-total // MAX_TENSORS))
    # Validation has about a quarter as many batches as training; at least ten of them are saved.
    evaluations = {
        "eval.save_interval": str(max(1, context.steps_per_epoch // 40)),
        "eval.start_step": "0",
        "predict.start_step": "0",
    }
    sparse = {**_NEVER, "train.start_step": "0", "train.save_interval": tensor_interval}
    in_full = _num_bytes(context.trained.parameters()) * 2 * MAX_TENSORS <= _MAX_BYTES
    predictions = {"train.start_step": "0", "train.save_interval": str(-(-total // MAX_PREDICTIONS))}
    tensors = {**sparse, "reductions": _REDUCTIONS, "save_raw_tensor": in_full}
    collections = {
        "losses": {"train.save_interval": str(loss_interval), "predict.save_interval": "1", **evaluations},
        "weights": tensors,
        "biases": tensors,
        "gradients": tensors,
        "update_ratios": {**sparse, "include_regex": "^update_ratio/"},
        "activity": {**sparse, "include_regex": "^activity/"},
        "input_statistics": {**sparse, "include_regex": "^input_statistics/"},
        "predictions": {**_NEVER, **evaluations, **predictions, "include_regex": "Loss_input_0$"},
        "labels": {**_NEVER, **evaluations, **predictions, "include_regex": "Loss_input_1$"},
    }
    for name, kinds in _ACTIVATIONS.items():
        regex = _input_regex(context.network, kinds)
        if regex:
            reductions = {"reductions": "mean,variance"} if name == "relu_input" else {}
            collections[name] = {**sparse, **reductions, "include_regex": regex}
    return [{"CollectionName": name, "CollectionParameters": values} for name, values in collections.items()]


def _input_regex(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str:
    names = [re.escape(name) for name, module in network.named_modules() if isinstance(module, kinds) and name]
    # Commas separate the regexes of a collection; module names contain none.
    return f"^(?:{'|'.join(names)})_input_" if names else ""


def _num_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters if parameter.requires_grad)

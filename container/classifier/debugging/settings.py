"""What is to be saved, and when: ``debughookconfig.json``, or collections of our own that suit a training's length."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from classifier.callbacks import TrainingContext
from classifier.contract.config import HookConfig, TrainingConfig
from classifier.contract.paths import Paths

MAX_LOSSES = 400  # saves of the loss in one training
MAX_TENSORS = 25  # saves of weights and gradients
_MAX_BYTES = 200 * 1024**2  # weights and gradients are saved whole up to this size, else as figures
_REDUCTIONS = "mean,variance,abs_mean,abs_max,l2_norm"
_NEVER = {"start_step": "1000000000"}
_NO_HOOK = HookConfig.model_validate({})
_PLATFORM = Path("/opt/ml")
_ACTIVATIONS = {"relu_input": (nn.ReLU, nn.ReLU6), "tanh_input": (nn.Tanh,), "sigmoid_input": (nn.Sigmoid,)}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``stop`` names the rules that end the training.

    ``own_collections``: whether collections of our own are saved where the configuration names none; smdebug then saves
    the losses alone, every 500 steps.
    """

    folder: Path
    tensorboard: Path | None = None
    hook: HookConfig | None = None
    own_collections: bool = True
    stop: tuple[str, ...] = ()

    def describe(self, context: TrainingContext) -> dict[str, Any]:
        """The configuration of the hook, as ``debughookconfig.json`` would say it, for this training."""
        hook = self.hook or _NO_HOOK
        collections = [
            {"CollectionName": one.collection_name, "CollectionParameters": _typed(one.collection_parameters)}
            for one in hook.collection_configurations
        ]
        if self.own_collections and not collections:
            collections = default_collections(context)
        return {"HookParameters": _typed(hook.hook_parameters), "CollectionConfigurations": collections or None}


def read_settings(config: TrainingConfig, paths: Paths) -> Settings:
    """For a training that asked for the debugger."""
    parameters, hook = config.hyperparameters, config.hook
    folder = _moved((hook or _NO_HOOK).local_path, paths)
    return Settings(
        folder=folder,
        tensorboard=_tensorboard(hook, folder, paths),
        hook=hook,
        stop=tuple(parameters.debug_stop.split(",")) if parameters.debug_stop else (),
        own_collections=hook is None or parameters.debug,
    )


def _tensorboard(hook: HookConfig | None, folder: Path, paths: Paths) -> Path | None:
    """Where ``tensorboardoutputconfig.json`` says, which the platform writes, or the hook's own parameters."""
    file = paths.config / "tensorboardoutputconfig.json"
    if file.is_file():
        path = json.loads(file.read_text(encoding="utf-8")).get("LocalPath", "/opt/ml/output/tensorboard")
        return _moved(Path(path), paths)
    parameters = hook.hook_parameters if hook else {}
    if "tensorboard_dir" in parameters:
        return _moved(Path(parameters["tensorboard_dir"]), paths)
    wanted = parameters.get("export_tensorboard", "false").lower() in ("true", "1")
    return folder / "tensorboard" if wanted else None


def _moved(path: Path, paths: Paths) -> Path:
    """A path under ``/opt/ml``, where ``SAGEMAKER_BASE_DIR`` has moved that."""
    return paths.base / path.relative_to(_PLATFORM) if path.is_relative_to(_PLATFORM) else path


def _typed(parameters: Mapping[str, str]) -> dict[str, Any]:
    """smdebug takes these two for booleans only, and the platform writes strings."""
    flags = {name for name in ("save_raw_tensor", "save_shape") if name in parameters}
    return {name: str(value).lower() in ("true", "1") if name in flags else value for name, value in parameters.items()}


def default_collections(context: TrainingContext) -> list[dict[str, Any]]:
    """Losses often; weights, biases and gradients seldom, in full where they are small; what the rules look at."""
    total = context.steps_per_epoch * context.num_epochs
    losses, seldom = max(1, total // MAX_LOSSES), str(max(1, total // MAX_TENSORS))
    # Validation has about a quarter as many batches as training: ten or more of them.
    evaluations = {
        "eval.save_interval": str(max(1, context.steps_per_epoch // 40)),
        "eval.start_step": "0",
        "predict.start_step": "0",
    }
    at_times = {**_NEVER, "train.start_step": "0", "train.save_interval": seldom}
    whole = _num_bytes(context.trained.parameters()) * 2 * MAX_TENSORS <= _MAX_BYTES
    figures = {**at_times, "reductions": _REDUCTIONS, "save_raw_tensor": whole}
    collections = {
        "losses": {"train.save_interval": str(losses), "predict.save_interval": "1", **evaluations},
        "weights": figures,
        "biases": figures,
        "gradients": figures,
        "update_ratios": {**at_times, "include_regex": "^update_ratio/"},
        "activity": {**at_times, "include_regex": "^activity/"},
        "predictions": {**_NEVER, **evaluations, "include_regex": "Loss_input_0$"},
        "labels": {**_NEVER, **evaluations, "include_regex": "Loss_input_1$"},
    }
    for name, kinds in _ACTIVATIONS.items():
        regex = _inputs_of(context.network, kinds)
        if regex:
            how = {"reductions": "mean,variance"} if name == "relu_input" else {}
            collections[name] = {**at_times, **how, "include_regex": regex}
    return [{"CollectionName": name, "CollectionParameters": values} for name, values in collections.items()]


def _inputs_of(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str:
    names = [re.escape(name) for name, module in network.named_modules() if isinstance(module, kinds) and name]
    # A collection's regexes are separated by commas, which no module's name holds.
    return f"^(?:{'|'.join(names)})_input_" if names else ""


def _num_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters if parameter.requires_grad)

"""torchvision's classification architectures: construction, heads and matching preprocessing."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from classifier.errors import ConfigError, did_you_mean
from classifier.vision.preprocessing import Preprocessing

# The auxiliary heads of the Inception family are trained with losses of their own, which fine-tuning does not need. The
# published weights expect inputs normalized with 0.5; transform_input converts from ImageNet's normalization.
_INCEPTION: dict[str, Any] = {"aux_logits": False, "transform_input": True, "init_weights": True}
# Lower bound, and torch's default, of the weight of each batch in batch normalization's running statistics. Ten
# architectures (MobileNetV3, MNASNet, …) set 0.01 or less, which suits hundreds of thousands of steps: after 300 steps
# the statistics would still be those of the untrained network, and predictions no better than chance.
MIN_MOMENTUM = 0.1
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


@cache
def architectures() -> tuple[str, ...]:
    """Return the names of all torchvision classification architectures."""
    return tuple(models.list_models(module=models))


def check_architecture(name: str) -> None:
    """Check that an architecture exists.

    Raises:
        ConfigError: torchvision has no classifier of this name.
    """
    if name not in architectures():
        hint = did_you_mean(name, architectures())
        raise ConfigError(f"unknown model {name!r}{hint}; `train --models` lists all {len(architectures())}")


def build(architecture: str, *, num_classes: int, image_size: int) -> nn.Module:
    """Build a randomly initialized classifier that maps float (N, 3, S, S) to logits (N, num_classes).

    Raises:
        ConfigError: the architecture is unknown or does not support this image size.
    """
    check_architecture(architecture)
    builder = models.get_model_builder(architecture)
    try:
        network = builder(weights=None, num_classes=num_classes, **_builder_arguments(architecture, image_size))
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"{architecture} can't take image_size={image_size}: {error}") from None
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = max(layer.momentum or 0.0, MIN_MOMENTUM)
    return network


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load tensors from a file into a module, with ``load_state_dict``.

    Raises:
        RuntimeError: the tensors do not match the module's.
    """
    # A module's own state dict also carries the layers' versions, which MNASNet checks and files of tensors lack.
    state = module.state_dict()
    state.clear()
    state.update(tensors)
    module.load_state_dict(state, strict=strict)


@torch.inference_mode()
def check_image_size(network: nn.Module, architecture: str, image_size: int) -> None:
    """Run a network on a blank image, because some architectures reduce small images to nothing.

    Raises:
        ConfigError: the image size is too small for the network.
    """
    try:
        network.eval()(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{architecture} can't take image_size={image_size}, raise it: {reason}") from None


def _builder_arguments(architecture: str, image_size: int) -> dict[str, Any]:
    if architecture in ("googlenet", "inception_v3"):
        return _INCEPTION
    if architecture.startswith("vit_"):
        return {"image_size": image_size}
    if architecture.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    return {}


def head_name(module: nn.Module) -> str:
    """Return the name of the layer that computes the logits: the last linear or convolutional layer in torchvision."""
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def preprocessing_for(architecture: str, image_size: int) -> Preprocessing:
    """Return the preprocessing of an architecture's published weights, scaled to another image size.

    Raises:
        ConfigError: the architecture is unknown.
    """
    check_architecture(architecture)
    published = models.get_model_weights(architecture)["DEFAULT"].transforms()
    return Preprocessing(
        resize=round(image_size * published.resize_size[0] / published.crop_size[0]),
        crop=image_size,
        interpolation=published.interpolation.value,
        mean=tuple(published.mean),
        std=tuple(published.std),
    )

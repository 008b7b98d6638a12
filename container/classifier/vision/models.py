"""An architecture's name, a number of classes → a module whose head fits; and which layer that head is."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from classifier.errors import ConfigError, did_you_mean
from classifier.vision.preprocessing import Preprocessing

# The auxiliary heads of the Inception family train on a loss of their own, which transfer does without. Their published
# weights expect inputs scaled by 0.5, which transform_input makes of ImageNet's normalisation.
_INCEPTION: dict[str, Any] = {"aux_logits": False, "transform_input": True, "init_weights": True}
# Of what batch normalisation remembers for evaluation, the least share that each batch makes new; torch's own default.
# Ten architectures (MobileNetV3, MNASNet, …) ask for 0.01 or less, which suits trainings of hundreds of thousands of
# steps. After three hundred the memory would still be of the untrained network, and label photos by chance.
MIN_MOMENTUM = 0.1
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


@cache
def architectures() -> tuple[str, ...]:
    """Every torchvision classification architecture, by the name that torchvision gives it."""
    return tuple(models.list_models(module=models))


def check_architecture(name: str) -> None:
    """
    Raises:
        ConfigError: torchvision knows no such classifier.
    """
    if name not in architectures():
        hint = did_you_mean(name, architectures())
        raise ConfigError(f"unknown model {name!r}{hint}; `train --models` lists the {len(architectures())} known")


def build(architecture: str, *, num_classes: int, image_size: int) -> nn.Module:
    """A randomly initialised classifier: float (N, 3, S, S) → logits (N, num_classes).

    Raises:
        ConfigError: the architecture is unknown, or cannot take images of this size.
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
    """``load_state_dict`` of what a file held.

    Raises:
        RuntimeError: they are not the module's, as ``load_state_dict`` says.
    """
    # Beside the tensors it carries the layers' versions, which no file of tensors has and MNASNet asks for.
    state = module.state_dict()
    state.clear()
    state.update(tensors)
    module.load_state_dict(state, strict=strict)


@torch.inference_mode()
def check_image_size(network: nn.Module, architecture: str, image_size: int) -> None:
    """Show a network a blank photo: some shrink small ones to nothing.

    Raises:
        ConfigError: the network cannot take images of this size.
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
    """The layer that turns features into logits: in every torchvision classifier the last linear or convolution."""
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def preprocessing_for(architecture: str, image_size: int) -> Preprocessing:
    """The pixels that the architecture's published weights were trained on, at another size in the same proportion.

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

"""Construction, heads and preprocessing of torchvision's architectures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from classifier.errors import ConfigError
from classifier.vision import artifact
from classifier.vision.manifest import ClassLabel, ModelManifest
from classifier.vision.models import architectures, build, check_architecture, head_name, preprocessing_for

# The name of the head of one architecture of each family.
HEADS = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "resnet18": "fc",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "vgg11": "classifier.6",
    "vit_b_16": "heads.head",
}
SMALL = (
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)


class NoValues(TorchFunctionMode):
    """Skips operations in place, which on the meta device set values that nothing reads."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_shapes(architecture: str, image_size: int = 224) -> nn.Module:
    """Build a classifier of three classes without weights: real ones would take minutes."""
    with torch.device("meta"), NoValues():
        return build(architecture, num_classes=3, image_size=image_size).eval()


@pytest.mark.parametrize("architecture", SMALL)
def test_small_architectures_compute_logits_of_the_requested_classes(architecture: str) -> None:
    module = build(architecture, num_classes=3, image_size=64).eval()
    check_layers(module)
    check_logits(module, 64)


@pytest.mark.parametrize("architecture", [name for name in architectures() if not name.startswith("regnet")])
def test_every_architecture_can_be_built(architecture: str) -> None:
    check_layers(build_shapes(architecture))


@pytest.mark.parametrize("architecture", HEADS)
def test_each_family_computes_logits_of_the_requested_classes(architecture: str) -> None:
    with torch.device("meta"):
        check_logits(build_shapes(architecture), 224)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in architectures() if not name.startswith("regnet")])
def test_every_architecture_computes_logits_of_the_requested_classes(architecture: str) -> None:
    with torch.device("meta"):
        check_logits(build_shapes(architecture), 224)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in architectures() if name.startswith("regnet")])
def test_every_regnet_can_be_built(architecture: str) -> None:
    # They compute their widths with tensors, so need real ones.
    module = build(architecture, num_classes=3, image_size=224).eval()
    check_layers(module)
    check_logits(module, 224)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", HEADS)
def test_every_family_is_saved_and_loaded(tmp_path: Path, architecture: str) -> None:
    network = build(architecture, num_classes=3, image_size=224)
    manifest = ModelManifest(
        architecture=architecture,
        classes=tuple(ClassLabel(folder=name, label=name, class_name=name) for name in "abc"),
        preprocessing=preprocessing_for(architecture, 224),
    )
    artifact.save(tmp_path, network, manifest)
    loaded, _ = artifact.load(tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def check_logits(module: nn.Module, image_size: int) -> None:
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, image_size, image_size)).shape == (2, 3)


def check_layers(module: nn.Module) -> None:
    # With MobileNetV3's own 0.01, the statistics would lag by hundreds of steps.
    assert {layer.momentum for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)} <= {0.1}
    head = module.get_submodule(head_name(module))
    assert isinstance(head, nn.Linear | nn.Conv2d)
    assert (head.out_features if isinstance(head, nn.Linear) else head.out_channels) == 3


@pytest.mark.parametrize(("architecture", "name"), HEADS.items())
def test_head_is_the_layer_that_computes_the_logits(architecture: str, name: str) -> None:
    assert head_name(build_shapes(architecture)) == name


def test_architectures_are_classifiers() -> None:
    names = architectures()
    assert set(HEADS) <= set(names)
    assert not any(name.startswith(("fasterrcnn", "deeplab", "r3d", "raft", "quantized")) for name in names)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("resnet_50", " (did you mean 'resnet50'?)"), ("mobilnet_v2", " (did you mean 'mobilenet_v2'?)"), ("Q", "")],
)
def test_unknown_architecture_is_an_error_with_a_suggestion(wrong: str, hint: str) -> None:
    expected = f"unknown model '{wrong}'{hint}; `train --models` lists all {len(architectures())}"
    for function in (
        lambda: check_architecture(wrong),
        lambda: build(wrong, num_classes=2, image_size=64),
        lambda: preprocessing_for(wrong, 64),
    ):
        with pytest.raises(ConfigError) as caught:
            function()
        assert str(caught.value) == expected


@pytest.mark.parametrize(("architecture", "image_size"), [("vit_b_16", 100), ("maxvit_t", 100)])
def test_unsupported_image_size_is_an_error(architecture: str, image_size: int) -> None:
    with pytest.raises(ConfigError, match=f"^{architecture} can't take image_size={image_size}: "):
        build(architecture, num_classes=2, image_size=image_size)


@pytest.mark.parametrize("image_size", [32, 64])
def test_vision_transformer_is_built_for_its_image_size(image_size: int) -> None:
    module = build_shapes("vit_b_32", image_size)
    assert module.get_parameter("encoder.pos_embedding").shape[1] == (image_size // 32) ** 2 + 1


@pytest.mark.parametrize(
    ("architecture", "image_size", "resize", "interpolation"),
    [
        ("resnet18", 224, 256, "bilinear"),
        ("resnet18", 112, 128, "bilinear"),
        ("resnet50", 224, 232, "bilinear"),
        ("efficientnet_b0", 224, 256, "bicubic"),
        ("inception_v3", 299, 342, "bilinear"),
        ("maxvit_t", 224, 224, "bicubic"),
    ],
)
def test_preprocessing_is_that_of_the_published_weights_in_proportion(
    architecture: str, image_size: int, resize: int, interpolation: str
) -> None:
    preprocessing = preprocessing_for(architecture, image_size)
    assert (preprocessing.resize, preprocessing.crop) == (resize, image_size)
    assert preprocessing.interpolation == interpolation


@pytest.mark.parametrize("architecture", architectures())
def test_crop_fits_into_the_resized_image(architecture: str) -> None:
    for image_size in (32, 33, 225, 1024):
        preprocessing = preprocessing_for(architecture, image_size)
        assert preprocessing.resize >= preprocessing.crop == image_size
        assert len(preprocessing.mean) == len(preprocessing.std) == 3

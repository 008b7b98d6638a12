"""Small real trainings for the debugger: one fault each, and healthy ones of several families."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from classifier.vision.models import build
from support.drawing import SHAPES, draw_photo, encode

CLASSES = tuple(SHAPES)
SIZE = (44, 40)
# Without normalization between its layers, and small.
PLAIN = "squeezenet1_1"

Change = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Setting:
    """A training: its photos, hyperparameters and initial weights, and the first diagnosis that is right for it.

    Attributes:
        photos: writes the channels ``train`` and ``validation`` below a folder.
        weights: changes the network whose weights are passed in the channel ``pretrained``; None for no channel.
        expected: cause of the diagnosis; None for a healthy training.
    """

    name: str
    expected: str | None
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    photos: Callable[[Path], None] = field(default=lambda folder: write_photos(folder))  # noqa: PLW0108 - defined below
    weights: Change | None = None


def write_photos(folder: Path, *, train: tuple[int, ...] = (48,) * 3, validation: tuple[int, ...] = (24,) * 3) -> None:
    """Write shapes of one color each; numbers of photos by class."""
    for seed, (channel, counts) in enumerate({"train": train, "validation": validation}.items()):
        for label, (name, count) in enumerate(zip(CLASSES, counts, strict=False)):
            (folder / channel / name).mkdir(parents=True)
            for number in range(count):
                photo = draw_photo(*SIZE, shape=name, seed=10_000 * seed + 1000 * label + number)
                (folder / channel / name / f"{number}.jpg").write_bytes(encode(photo))


def write_few(folder: Path) -> None:
    """Write 20 training photos whose classes differ by shape alone, in random colors and places; 90 for validation."""
    for seed, (channel, counts) in enumerate({"train": (7, 7, 6), "validation": (30, 30, 30)}.items()):
        rng = np.random.default_rng(seed)
        for name, count in zip(CLASSES, counts, strict=True):
            (folder / channel / name).mkdir(parents=True)
            for number in range(count):
                colour = tuple(rng.integers(0, 256, 3).tolist())
                photo = draw_photo(*SIZE, shape=name, colour=colour, seed=int(rng.integers(1 << 30)))
                (folder / channel / name / f"{number}.jpg").write_bytes(encode(photo))


def write_black(folder: Path) -> None:
    """Write black photos, each of another size, so that no two have the same bytes."""
    for seed, (channel, count) in enumerate({"train": 48, "validation": 24}.items()):
        for label, name in enumerate(CLASSES):
            (folder / channel / name).mkdir(parents=True)
            for number in range(count):
                size = (40 + 3 * seed + label + 6 * (number % 7), 40 + number)
                (folder / channel / name / f"{number}.png").write_bytes(encode(Image.new("RGB", size), "PNG"))


def shuffle_labels(folder: Path) -> None:
    """Write photos whose class folders are drawn at random, half of each channel's classes."""
    write_photos(folder, train=(60, 60), validation=(40, 40))
    rng = np.random.default_rng(0)
    for channel in ("train", "validation"):
        photos = sorted((folder / channel).rglob("*.jpg"))
        contents = [photo.read_bytes() for photo in photos]
        for photo, index in zip(photos, rng.permutation(len(photos)), strict=True):
            photo.write_bytes(contents[index])


def leak_validation(folder: Path) -> None:
    """Write a validation channel that is a part of the training channel."""
    write_photos(folder)
    for photo in (folder / "validation").rglob("*.jpg"):
        photo.write_bytes((folder / "train" / photo.relative_to(folder / "validation")).read_bytes())


def _scaled(factor: float) -> Change:
    def change(network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(factor)

    return change


def _constant(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.fill_(0.02)


def _dead(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.fill_(-100.0)


def _saturated(network: nn.Module) -> None:
    """Close the gates of squeeze and excitation: the sigmoid of -100 is 0."""
    for name, module in network.named_modules():
        if name.endswith("fc2"):
            bias = module.get_parameter("bias")
            bias.fill_(-100.0)


def _narrow(network: nn.Module) -> None:
    """Initialize all layers as torch does by default, which suits no deep network of ReLUs: 0.4 of He's size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()


def write_weights(folder: Path, model: str, change: Change, image_size: int) -> None:
    """Write the changed initial weights of a model as the channel ``pretrained``."""
    torch.manual_seed(0)
    network = build(model, num_classes=1000, image_size=image_size)
    with torch.no_grad():
        change(network)
    folder.mkdir(parents=True)
    state: dict[str, Tensor] = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")


_PLAIN = {"model": PLAIN, "lr": "0.001"}
_BIG = {"model": "resnet18", "epochs": "5"}

FAULTS = (
    Setting("lr=10, SGD", "lr too high", {**_BIG, "lr": "10", "optimizer": "sgd"}),
    Setting("lr=10, AdamW", "lr too high", {**_BIG, "lr": "10"}),
    Setting("lr=1e-9", "lr too low", {**_BIG, "lr": "1e-9"}),
    Setting("weights × 6", "initialization", _PLAIN, weights=_scaled(6)),
    Setting("weights × 0.1", "initialization", _PLAIN, weights=_scaled(0.1)),
    Setting("constant weights", "initialization", _PLAIN, weights=_constant),
    Setting("dead ReLUs", "dead ReLUs", {**_PLAIN, "epochs": "2"}, weights=_dead),
    Setting("saturated sigmoids", "saturation", {"model": "efficientnet_b0", "epochs": "4"}, weights=_saturated),
    Setting("20 photos", "memorizing", {**_BIG, "epochs": "25", "augmentation": "none"}, write_few),
    Setting("classes 42:1", "imbalance", {**_BIG, "epochs": "3"}, lambda f: write_photos(f, train=(84, 84, 2))),
    Setting("black photos", "input", _BIG, write_black),
    Setting("shuffled labels", "labels", {**_BIG, "epochs": "12", "augmentation": "none"}, shuffle_labels),
    Setting("deep, no normalization", "vanishing gradients", {**_PLAIN, "optimizer": "sgd"}, weights=_narrow),
    Setting("leaked validation", "leak", {**_BIG, "epochs": "3"}, leak_validation),
)

_GENTLE = {"lr": "0.0003"}
# Enough steps for the statistics of batch normalization, of which a batch of 32 pixels gives a few values.
_LONGER = {"lr": "0.0005", "epochs": "20"}
HEALTHY = (
    Setting("resnet18", None, {"model": "resnet18"}),
    Setting("resnet18, SGD", None, {"model": "resnet18", "optimizer": "sgd", "lr": "0.02"}),
    Setting("resnet18, pretrained", None, {"model": "resnet18", **_GENTLE}, weights=lambda _: None),
    Setting("mobilenet_v3_small", None, {"model": "mobilenet_v3_small", **_LONGER}),
    Setting("mobilenet_v3_small, pretrained", None, {"model": "mobilenet_v3_small", **_LONGER}, weights=lambda _: None),
    Setting("efficientnet_b0", None, {"model": "efficientnet_b0", **_LONGER}),
    Setting("vit_b_32", None, {"model": "vit_b_32", "lr": "0.0001", "epochs": "3"}),
    Setting("convnext_tiny", None, {"model": "convnext_tiny", "lr": "0.0002"}),
    Setting("swin_t", None, {"model": "swin_t", "lr": "0.0002"}),
    Setting("squeezenet1_1", None, {"model": PLAIN, "lr": "0.0005", "epochs": "8"}),
)

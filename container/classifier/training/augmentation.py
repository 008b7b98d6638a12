"""Training-time augmentation: random crops while photos are decoded, the rest on the device, a batch at a time."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classifier.vision.images import decode
from classifier.vision.preprocessing import Preprocessing

_MAX_ASPECT = 4 / 3


@dataclass(frozen=True)
class Augmentation:
    """A preset of the hyperparameter ``augmentation``.

    Attributes:
        min_area: the smallest share of a photo that a random crop keeps; 1 is the centre crop of validation.
        flip: mirror each photo with probability 1/2.
        jitter: vary brightness, contrast and saturation by up to this share.
        erase: the probability that a patch is erased.
    """

    min_area: float = 1.0
    flip: bool = False
    jitter: float = 0.0
    erase: float = 0.0


PRESETS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=True),
    "standard": Augmentation(min_area=0.35, flip=True),
    "strong": Augmentation(min_area=0.2, flip=True, jitter=0.3, erase=0.25),
}


def random_crop(data: bytes, preprocessing: Preprocessing, min_area: float, rng: np.random.Generator) -> np.ndarray:
    """Decode a random part of a photo, resized to the model's input.

    Area and aspect ratio are drawn as in Inception's random resized crop (Szegedy et al., 2014). The area is drawn
    before decoding, so that a JPEG is decoded no larger than its crop needs.

    Args:
        data: the content of an image file.
        min_area: the smallest share of the photo's area.

    Returns:
        uint8 (crop, crop, 3).

    Raises:
        ImageError: the photo can't be read.
    """
    area = rng.uniform(min_area, 1)
    aspect = math.exp(rng.uniform(-math.log(_MAX_ASPECT), math.log(_MAX_ASPECT)))
    image = decode(data, cover=math.ceil(preprocessing.crop / math.sqrt(area / _MAX_ASPECT)))
    side = math.sqrt(area * image.width * image.height)
    width = min(side * math.sqrt(aspect), image.width)
    height = min(side / math.sqrt(aspect), image.height)
    left = rng.uniform(0, image.width - width)
    top = rng.uniform(0, image.height - height)
    return preprocessing.resize_box(image, (left, top, left + width, top + height))


def augment_batch(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Mirror, recolour and erase a batch of photos at random.

    Args:
        pixels: uint8 (N, 3, S, S), left unchanged.
        generator: on the CPU, so that every device draws the same numbers.

    Returns:
        (N, 3, S, S), uint8 or, with jitter, float32, in 0–255.
    """
    if augmentation.flip:
        mirrored = _bernoulli(0.5, len(pixels), generator).to(pixels.device)
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    if augmentation.jitter:
        pixels = _jitter(pixels.float(), augmentation.jitter, generator)
    if augmentation.erase:
        pixels = _erase(pixels, augmentation.erase, generator)
    return pixels


def _bernoulli(probability: float, count: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).view(-1, 1, 1, 1)


def _jitter(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    factors = 1 + strength * (2 * torch.rand(3, len(pixels), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(pixels.device)
    pixels = pixels * brightness
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * contrast
    grey = pixels.mean(dim=1, keepdim=True)
    return (grey + (pixels - grey) * saturation).clamp(0, 255)


def _erase(pixels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Fill a patch of 2–20 % of the area (random erasing; Zhong et al., 2017) with the batch's mean grey."""
    count, _, height, width = pixels.shape
    share, y, x = torch.rand(3, count, 1, 1, 1, generator=generator)
    half = (0.02 + 0.18 * share).sqrt() / 2
    rows = torch.linspace(0, 1, height).view(1, 1, -1, 1)
    columns = torch.linspace(0, 1, width).view(1, 1, 1, -1)
    patch = ((rows - y).abs() < half) & ((columns - x).abs() < half) & _bernoulli(probability, count, generator)
    return torch.where(patch.to(pixels.device), pixels.float().mean().to(pixels.dtype), pixels)

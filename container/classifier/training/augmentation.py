"""Training-time augmentation: random crops while photos are decoded, the rest on the device, a batch at a time."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classifier.training.plan import CROP, ERASE, JITTER, MIRROR
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

    @property
    def changes_batches(self) -> bool:
        """Whether :func:`augment_batch` has anything to do."""
        return self.flip or self.jitter > 0 or self.erase > 0


PRESETS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=True),
    "standard": Augmentation(min_area=0.35, flip=True),
    "strong": Augmentation(min_area=0.2, flip=True, jitter=0.3, erase=0.25),
}


def random_crop(data: bytes, preprocessing: Preprocessing, min_area: float, draws: np.ndarray) -> np.ndarray:
    """Decode a random part of a photo, resized to the model's input.

    Area and aspect ratio are drawn as in Inception's random resized crop (Szegedy et al., 2014). The area is drawn
    before decoding, so that a JPEG is decoded no larger than its crop needs.

    Args:
        data: the content of an image file.
        min_area: the smallest share of the photo's area.
        draws: the photo's row of :func:`~classifier.training.plan.draws`, float32 (NUM_DRAWS,).

    Returns:
        uint8 (crop, crop, 3).

    Raises:
        ImageError: the photo can't be read.
    """
    size, shape, x, y = draws[CROP].tolist()
    area = min_area + size * (1 - min_area)
    aspect = _MAX_ASPECT ** (2 * shape - 1)
    image = decode(data, cover=math.ceil(preprocessing.crop / math.sqrt(area / _MAX_ASPECT)))
    side = math.sqrt(area * image.width * image.height)
    width = min(side * math.sqrt(aspect), image.width)
    height = min(side / math.sqrt(aspect), image.height)
    left = x * (image.width - width)
    top = y * (image.height - height)
    return preprocessing.resize_box(image, (left, top, left + width, top + height))


def augment_batch(pixels: Tensor, augmentation: Augmentation, draws: Tensor) -> Tensor:
    """Mirror, recolour and erase photos at random. What happens to a photo depends on no other of the batch.

    Args:
        pixels: uint8 (N, 3, S, S), left unchanged.
        draws: of :func:`~classifier.training.plan.draws`, float32 (N, NUM_DRAWS), on the same device.

    Returns:
        (N, 3, S, S), uint8 or, with jitter, float32, in 0–255.
    """
    if augmentation.flip:
        pixels = torch.where(_column(draws[:, MIRROR]) < 0.5, pixels.flip(-1), pixels)
    if augmentation.jitter:
        pixels = _jitter(pixels.float(), augmentation.jitter, draws[:, JITTER])
    if augmentation.erase:
        pixels = _erase(pixels, augmentation.erase, draws[:, ERASE])
    return pixels


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _jitter(pixels: Tensor, strength: float, draws: Tensor) -> Tensor:
    brightness, contrast, saturation = map(_column, (1 + strength * (2 * draws - 1)).unbind(1))
    pixels = pixels * brightness
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * contrast
    grey = pixels.mean(dim=1, keepdim=True)
    return (grey + (pixels - grey) * saturation).clamp(0, 255)


def _erase(pixels: Tensor, probability: float, draws: Tensor) -> Tensor:
    """Fill a patch of 2–20 % of the area (random erasing; Zhong et al., 2017) with the photo's mean grey."""
    happens, share, y, x = map(_column, draws.unbind(1))
    half = (0.02 + 0.18 * share).sqrt() / 2
    rows = torch.linspace(0, 1, pixels.shape[2], device=pixels.device).view(1, 1, -1, 1)
    columns = torch.linspace(0, 1, pixels.shape[3], device=pixels.device).view(1, 1, 1, -1)
    patch = ((rows - y).abs() < half) & ((columns - x).abs() < half) & (happens < probability)
    mean = pixels.float().mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(patch, mean.to(pixels.dtype), pixels)

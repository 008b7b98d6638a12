"""Preprocessing of images for a model, a value stored in the artifact. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from classifier.vision.images import MAX_DECODED, OpenedImage, decode, open_image

Interpolation = Literal["bilinear", "bicubic"]
_MAX_SIDE = 4096
# Below it, normalized pixels leave the range in which float32 distinguishes them.
_MIN_STD = 1e-9
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize the shorter side, crop the center, scale to 0–1, normalize; the same in validation and serving.

    Pixels stay uint8 until they are on the device, where the model applies ``mean`` and ``std``.

    Attributes:
        resize: shorter side after resizing, in pixels.
        crop: side of the square center crop, in pixels.
        mean: mean of each RGB channel, in 0–1.
        std: standard deviation of each RGB channel, in 0–1, above 0.

    Raises:
        ValueError: a value is out of range, infinite or NaN.
    """

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize <= _MAX_SIDE:
            raise ValueError(f"1 ≤ crop={self.crop} ≤ resize={self.resize} ≤ {_MAX_SIDE} should hold")
        # Written such that NaN fails, too.
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean={self.mean} should be three numbers from 0 to 1")
        if not all(_MIN_STD <= value <= 1 for value in self.std):
            raise ValueError(f"std={self.std} should be three numbers above 0 and at most 1")

    @property
    def resampling(self) -> Image.Resampling:
        """Pillow's filter for ``interpolation``."""
        return _RESAMPLING[self.interpolation]

    def open(self, data: bytes, *, max_decoded: int = MAX_DECODED) -> OpenedImage:
        """Read the header of an image file, to decode it no larger than ``crop_center`` needs it.

        Raises:
            ImageError: the bytes are not an image, or one that needs more than ``max_decoded`` bytes of memory.
        """
        return open_image(data, cover=self.resize, max_decoded=max_decoded)

    def pixels_of(self, data: bytes) -> np.ndarray:
        """Decode an image file, a large one with no other at once, and return its center crop, uint8 (crop, crop, 3).

        Raises:
            ImageError: the bytes are not a readable image.
        """
        return self.crop_center(decode(data, cover=self.resize))

    def crop_center(self, image: Image.Image) -> np.ndarray:
        """Return the resized center of an RGB image, uint8 (crop, crop, 3); one pass resizes and crops."""
        side = min(image.size) * self.crop / self.resize
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return self.resize_box(image, (left, top, left + side, top + side))

    def resize_box(self, image: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
        """Resize a box (left, top, right, bottom; in pixels) of an RGB image to uint8 (crop, crop, 3)."""
        return np.asarray(image.resize((self.crop, self.crop), self.resampling, box=box))

"""Synthetic photos: a coloured shape on a gradient. Imports no torch."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SHAPES: Mapping[str, tuple[int, int, int]] = {"cross": (40, 60, 220), "disc": (210, 40, 40), "square": (30, 170, 60)}


def draw_photo(
    width: int = 320,
    height: int = 240,
    *,
    shape: str = "disc",
    colour: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Image.Image:
    """Draw an RGB image of width x height pixels: a gradient whose corners all differ, and a shape near the middle."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    levels = np.stack([60 + 150 * x, 70 + 130 * y, 90 + 60 * (1 - x) * (1 - y)], axis=-1)
    image = Image.fromarray(levels.astype(np.uint8))
    side = min(width, height) * rng.uniform(0.45, 0.65)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    _draw_shape(ImageDraw.Draw(image), shape, (left, top, left + side, top + side), colour or SHAPES[shape])
    return image


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, box: tuple[float, float, float, float], colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    third = (right - left) / 3
    match shape:
        case "disc":
            draw.ellipse(box, fill=colour)
        case "square":
            draw.rectangle(box, fill=colour)
        case "cross":
            draw.rectangle((left + third, top, right - third, bottom), fill=colour)
            draw.rectangle((left, top + third, right, bottom - third), fill=colour)


def draw_scene(seed: int) -> Image.Image:
    """Draw 320 × 240 pixels of blurred discs of all sizes, as different from seed to seed as photos are."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (61, 3)).tolist()
    image = Image.new("RGB", (320, 240), tuple(colours[0]))
    for colour in colours[1:]:
        left, top, side = rng.integers((-40, -40, 10), (300, 220, 120)).tolist()
        ImageDraw.Draw(image).ellipse((left, top, left + side, top + side), fill=tuple(colour))
    return image.filter(ImageFilter.GaussianBlur(2))


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """Encode an image as the bytes of a file; JPEG quality is 90 unless given."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 90} if format == "JPEG" else {}) | options)
    return buffer.getvalue()


def write_classes(
    folder: Path,
    *,
    classes: Sequence[str] = tuple(SHAPES),
    photos_per_class: int = 8,
    size: tuple[int, int] = (56, 48),
    seed: int = 0,
) -> Path:
    """Write a channel of class folders, ``cross/0.jpg`` and so on, and return it; a class is one shape and colour."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(photos_per_class):
            photo = draw_photo(*size, shape=name, seed=_seed(seed, label, number))
            (folder / name / f"{number}.jpg").write_bytes(encode(photo))
    return folder


def _seed(*parts: int) -> int:
    """Combine several numbers into one seed, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

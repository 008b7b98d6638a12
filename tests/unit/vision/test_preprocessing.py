"""Preprocessing: agreement with torchvision, exact sizes, limits."""

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from classifier.errors import ImageError
from classifier.vision.preprocessing import Interpolation, Preprocessing
from support.drawing import draw_photo, encode

INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic")


def torchvision_pixels(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    mode = InterpolationMode(preprocessing.interpolation)
    chain = transforms.Compose(
        [transforms.Resize(preprocessing.resize, mode), transforms.CenterCrop(preprocessing.crop)]
    )
    return np.asarray(chain(image)).astype(int)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (256, 224), (232, 224), (224, 224)])
@pytest.mark.parametrize("size", [(320, 240), (240, 320), (500, 375), (301, 299), (200, 200)])
def test_pixels_agree_with_torchvision(
    size: tuple[int, int], resize: int, crop: int, interpolation: Interpolation
) -> None:
    image = draw_photo(*size)
    preprocessing = Preprocessing(resize=resize, crop=crop, interpolation=interpolation)
    ours = preprocessing.crop_center(image).astype(int)
    distance = np.abs(ours - torchvision_pixels(image, preprocessing))
    assert ours.shape == (crop, crop, 3)
    # torchvision rounds the box to whole pixels, which shows at the edges of the shape only.
    assert distance.mean() < 1.2
    assert np.median(distance) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (31, 33), (33, 31), (7, 224), (225, 224), (3, 2)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (32, 32), (37, 32), (342, 299)])
def test_crop_has_the_exact_size_for_any_image(size: tuple[int, int], resize: int, crop: int) -> None:
    data = encode(draw_photo(*size), "PNG")
    pixels = Preprocessing(resize=resize, crop=crop).pixels_of(data)
    assert pixels.shape == (crop, crop, 3)
    assert pixels.dtype == np.uint8


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 256), st.integers(0, 40))
def test_any_image_size_works_with_any_preprocessing(width: int, height: int, crop: int, margin: int) -> None:
    preprocessing = Preprocessing(resize=crop + margin, crop=crop)
    assert preprocessing.crop_center(Image.new("RGB", (width, height))).shape == (crop, crop, 3)


def test_crop_is_the_center() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    pixels = Preprocessing(resize=50, crop=48).crop_center(image)
    assert (pixels[:, 1:-1] == (255, 0, 0)).all()


def test_served_pixels_are_training_pixels(photo: bytes) -> None:
    preprocessing = Preprocessing(resize=36, crop=32)
    with Image.open(io.BytesIO(photo)) as image:
        full = preprocessing.crop_center(image.convert("RGB")).astype(int)
    scaled = preprocessing.pixels_of(photo).astype(int)
    assert np.abs(full - scaled).mean() < 1.5
    assert np.array_equal(preprocessing.pixels_of(photo), preprocessing.pixels_of(photo))


def test_invalid_image_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="the file is empty"):
        Preprocessing().pixels_of(b"")


def test_limit_of_decoded_bytes_is_passed_to_the_decoder(photo: bytes) -> None:
    with pytest.raises(ImageError, match="320 × 240 pixels, which take 1 MB"):
        Preprocessing().open(photo, max_decoded=1000)


@pytest.mark.parametrize(
    "fields",
    [{"resize": 4096, "crop": 4096}, {"resize": 1, "crop": 1}, {"std": (1e-9, 1.0, 1.0)}, {"mean": (0.0, 1.0, 0.5)}],
)
def test_values_at_their_bounds_are_valid(fields: dict[str, Any]) -> None:
    assert Preprocessing(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": 4097}, "resize=4097 ≤ 4096 should hold"),
        ({"crop": 0}, "1 ≤ crop=0"),
        ({"resize": 223}, "crop=224 ≤ resize=223"),
        *(
            ({"std": (1.0, 1.0, value)}, "std=.* should be three numbers above 0 and at most 1")
            for value in (0.0, -0.2, 1e-10, 1.1, math.inf, math.nan)
        ),
        *(
            ({"mean": (0.5, value, 0.5)}, "mean=.* should be three numbers from 0 to 1")
            for value in (-0.1, 1.1, math.inf, -math.inf, math.nan)
        ),
    ],
)
def test_values_out_of_bounds_are_value_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**fields)

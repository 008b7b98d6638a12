"""Pixels are torchvision's, exact in size, and the same in training and serving."""

import io

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
def test_pixels_are_those_of_torchvision(
    size: tuple[int, int], resize: int, crop: int, interpolation: Interpolation
) -> None:
    image = draw_photo(*size)
    preprocessing = Preprocessing(resize=resize, crop=crop, interpolation=interpolation)
    ours = preprocessing.crop_centre(image).astype(int)
    distance = np.abs(ours - torchvision_pixels(image, preprocessing))
    assert ours.shape == (crop, crop, 3)
    # Half a pixel, which torchvision rounds away, shows at the rim of the shape alone.
    assert distance.mean() < 1.2
    assert np.median(distance) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (31, 33), (33, 31), (7, 224), (225, 224), (3, 2)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (32, 32), (37, 32), (342, 299)])
def test_the_crop_is_exact_whatever_the_shape(size: tuple[int, int], resize: int, crop: int) -> None:
    data = encode(draw_photo(*size), "PNG")
    pixels = Preprocessing(resize=resize, crop=crop).pixels_of(data)
    assert pixels.shape == (crop, crop, 3)
    assert pixels.dtype == np.uint8


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 256), st.integers(0, 40))
def test_any_shape_fits_any_preprocessing(width: int, height: int, crop: int, margin: int) -> None:
    preprocessing = Preprocessing(resize=crop + margin, crop=crop)
    assert preprocessing.crop_centre(Image.new("RGB", (width, height))).shape == (crop, crop, 3)


def test_the_centre_is_what_is_left() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    pixels = Preprocessing(resize=50, crop=48).crop_centre(image)
    assert (pixels[:, 1:-1] == (255, 0, 0)).all()


def test_served_pixels_are_training_pixels(photo: bytes) -> None:
    preprocessing = Preprocessing(resize=36, crop=32)
    with Image.open(io.BytesIO(photo)) as image:
        full = preprocessing.crop_centre(image.convert("RGB")).astype(int)
    scaled = preprocessing.pixels_of(photo).astype(int)
    assert np.abs(full - scaled).mean() < 1.5
    assert np.array_equal(preprocessing.pixels_of(photo), preprocessing.pixels_of(photo))


def test_bytes_that_are_no_photo_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="the file is empty"):
        Preprocessing().pixels_of(b"")


def test_a_limit_on_pixels_is_kept(photo: bytes) -> None:
    with pytest.raises(ImageError, match="at most 1,000 are taken"):
        Preprocessing().pixels_of(photo, max_pixels=1000)

"""Augmentation presets and random crops: what they change, within which limits, and that a seed repeats them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from classifier.contract.hyperparameters import Hyperparameters
from classifier.training.augmentation import PRESETS, Augmentation, augment_batch, random_crop
from classifier.training.plan import draws
from classifier.vision.preprocessing import Preprocessing
from support.drawing import draw_photo, encode

PREPROCESSING = Preprocessing(resize=36, crop=32)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def augment(pixels: Tensor, augmentation: Augmentation, seed: int = 0) -> Tensor:
    return augment_batch(pixels, augmentation, torch.from_numpy(draws(seed, 1, np.arange(len(pixels)))))


def draws_of(seed: int) -> np.ndarray:
    return draws(seed, 1, np.array([0]))[0]


def test_every_preset_is_a_value_of_the_hyperparameter() -> None:
    assert all(Hyperparameters.parse({"augmentation": name}).augmentation == name for name in PRESETS)


def test_preset_none_changes_nothing(pixels: Tensor) -> None:
    assert torch.equal(augment(pixels, PRESETS["none"]), pixels)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_the_shape_and_range_and_repeat_with_their_seed(pixels: Tensor, preset: str) -> None:
    before = pixels.clone()
    first, again = augment(pixels, PRESETS[preset]), augment(pixels, PRESETS[preset])
    assert first.shape == pixels.shape
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, again)
    assert torch.equal(pixels, before)
    assert preset == "none" or not torch.equal(first, augment(pixels, PRESETS[preset], seed=1))


def test_flip_mirrors_about_half_of_the_photos(pixels: Tensor) -> None:
    flipped = augment(pixels, PRESETS["flip"])
    same = (flipped == pixels).flatten(1).all(dim=1)
    mirrored = (flipped == pixels.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48


@pytest.mark.parametrize("preset", PRESETS)
def test_a_photo_is_augmented_alike_in_any_batch(pixels: Tensor, preset: str) -> None:
    whole = augment(pixels, PRESETS[preset])
    drawn = torch.from_numpy(draws(0, 1, np.arange(len(pixels))))
    for indices in ([5], list(range(63, 0, -3))):
        part = augment_batch(pixels[indices], PRESETS[preset], drawn[indices])
        torch.testing.assert_close(part, whole[indices])


def test_jitter_changes_brightness_within_its_strength() -> None:
    grey = torch.full((200, 3, 8, 8), 100, dtype=torch.uint8)
    levels = augment(grey, Augmentation(jitter=0.3)).mean(dim=(1, 2, 3))
    assert levels.min() >= 70 - 1e-3
    assert levels.max() <= 130 + 1e-3
    assert levels.std() > 10


def test_jitter_keeps_grey_photos_grey_and_recolours_others(pixels: Tensor) -> None:
    grey = pixels[:, :1].expand(-1, 3, -1, -1)
    jittered = augment(grey, Augmentation(jitter=0.3))
    torch.testing.assert_close(jittered[:, 0], jittered[:, 2])
    assert not torch.equal(augment(pixels, Augmentation(jitter=0.3)), pixels.float())


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_fills_one_patch_in_its_share_of_the_photos(probability: float) -> None:
    pixels = torch.zeros(400, 3, 40, 40, dtype=torch.uint8)
    pixels[..., ::2] = 255
    erased = augment(pixels, Augmentation(erase=probability)) != pixels
    shares = erased.float().mean(dim=(1, 2, 3))
    assert (shares > 0).float().mean().item() == pytest.approx(probability, abs=0.08)
    assert shares.max() <= 0.25
    rows, columns = erased.any(dim=(1, 3)), erased.any(dim=(1, 2))
    assert torch.equal(erased.all(dim=1), rows[:, :, None] & columns[:, None, :])


@pytest.mark.parametrize("size", [(320, 240), (31, 33), (1, 200), (5, 3)])
def test_random_crops_have_the_size_of_the_input(size: tuple[int, int]) -> None:
    data = encode(draw_photo(*size), "PNG")
    for seed in range(20):
        crop = random_crop(data, PREPROCESSING, 0.08, draws_of(seed))
        assert crop.shape == (32, 32, 3)
        assert crop.dtype == np.uint8


def test_random_crops_vary_and_repeat_with_their_seed(photo: bytes) -> None:
    crops = [random_crop(photo, PREPROCESSING, 0.35, draws_of(seed)) for seed in (0, 1, 2, 0)]
    assert np.array_equal(crops[0], crops[3])
    assert all(not np.array_equal(first, second) for first, second in pairwise(crops[:3]))


def test_random_crops_are_parts_of_the_photo_of_at_least_the_minimum_area() -> None:
    ramp = encode(Image.fromarray(np.tile(np.arange(250, dtype=np.uint8), (250, 1))), "PNG")
    for seed in range(50):
        crop = random_crop(ramp, PREPROCESSING, 0.5, draws_of(seed)).astype(int)
        width = (crop[:, -1, 0] - crop[:, 0, 0]).mean() * 32 / 31
        assert 250 * np.sqrt(0.5 * 3 / 4) - 3 <= width <= 253


def draw_boxes(*, crop: int = 32, min_area: float = 0.35) -> np.ndarray:
    """Crop a JPEG of 1024 × 1024 pixels 300 times, without resizing the crops.

    Returns:
        float64 (300, 5): left, top, width and height of the crop and the side of the decoded photo, in its pixels.
    """
    data, boxes = encode(draw_photo(1024, 1024)), list[tuple[float, ...]]()

    class Recording(Preprocessing):
        def resize_box(self, image: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
            left, top, right, bottom = box
            boxes.append((left, top, right - left, bottom - top, image.width))
            return np.zeros((crop, crop, 3), np.uint8)

    for seed in range(300):
        random_crop(data, Recording(resize=crop, crop=crop), min_area, draws_of(seed))
    return np.array(boxes)


def test_random_crops_have_aspect_ratios_from_three_quarters_to_four_thirds() -> None:
    _, _, width, height, _ = draw_boxes().T
    aspect = width / height
    assert 3 / 4 - 1e-9 <= aspect.min() < 0.8
    assert 1.25 < aspect.max() <= 4 / 3 + 1e-9
    assert 0.4 < (aspect > 1).mean() < 0.6


def test_random_crops_have_areas_from_the_minimum_to_the_whole_photo() -> None:
    _, _, width, height, side = draw_boxes().T
    area = width * height / side**2
    assert 0.35 - 1e-9 <= area.min() < 0.38
    assert 0.96 < area.max() <= 1
    assert 0.6 < area.mean() < 0.7


@pytest.mark.parametrize("axis", [0, 1])
def test_random_crops_are_spread_over_the_photo(axis: int) -> None:
    boxes = draw_boxes()
    start, margin = boxes[:, axis], boxes[:, 4] - boxes[:, axis + 2]
    position = start[margin > 1] / margin[margin > 1]
    assert position.min() >= 0
    assert position.max() <= 1
    assert np.histogram(position, bins=4, range=(0, 1))[0].min() > len(position) / 8


def test_random_crops_are_decoded_as_large_as_needed_and_no_larger() -> None:
    _, _, width, height, side = draw_boxes(crop=100).T
    assert set(side) == {128, 256}  # 1/8 and 1/4 of the photo
    assert min(width.min(), height.min()) >= 100

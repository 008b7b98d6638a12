"""Batches: the right photos in the right order, with or without threads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from classifier.errors import DataError
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, ImageLoader, in_order, num_steps, shuffled_order
from classifier.training.scan import Sample
from classifier.vision.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=36, crop=32)


def image_loader(samples: Sequence[Sample], preset: str = "none", batch_size: int = 5) -> ImageLoader:
    return ImageLoader(samples, PREPROCESSING, batch_size, PRESETS[preset])


def pixels_of(loader: ImageLoader, *, seed: int = 0) -> Tensor:
    return torch.cat([batch.inputs for batch in loader.iterate(range(len(loader)), seed=seed)])


def test_every_photo_is_loaded_once_with_its_pixels_and_label(samples: list[Sample]) -> None:
    batches = list(in_order(image_loader(samples)))
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5, 4]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [sample.label for sample in samples]
    for pixels, sample in zip(torch.cat([batch.inputs for batch in batches]), samples, strict=True):
        expected = PREPROCESSING.pixels_of(sample.path.read_bytes())
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_batches_follow_the_given_order(samples: list[Sample]) -> None:
    order = [23, 0, 11, 11, 5, 16, 2]
    whole = pixels_of(image_loader(samples))
    batches = list(image_loader(samples).iterate(order, seed=0))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [samples[index].label for index in order]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), whole[order])


@pytest.mark.parametrize("preset", ["none", "standard"])
@pytest.mark.parametrize("num_workers", [1, 4])
def test_threads_do_not_change_the_pixels(samples: list[Sample], num_workers: int, preset: str) -> None:
    alone = pixels_of(image_loader(samples, preset))
    with ThreadPoolExecutor(num_workers) as executor:
        batches = ImageLoader(samples, PREPROCESSING, 5, PRESETS[preset], executor, num_workers)
        assert torch.equal(pixels_of(batches), alone)


def test_pixels_are_uint8_in_channels_last_memory(samples: list[Sample]) -> None:
    for batch in in_order(image_loader(samples)):
        assert batch.inputs.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert batch.inputs.shape[1:] == (3, 32, 32)
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_later_batches_do_not_overwrite_earlier_ones(samples: list[Sample]) -> None:
    with ThreadPoolExecutor(2) as executor:
        kept: list[tuple[Batch, Tensor]] = []
        for batch in in_order(ImageLoader(samples, PREPROCESSING, 3, executor=executor, num_workers=2)):
            kept.append((batch, batch.inputs.clone()))
    assert all(torch.equal(batch.inputs, before) for batch, before in kept)


def test_crops_vary_between_epochs_and_repeat_with_the_same_seed(samples: list[Sample]) -> None:
    loader = image_loader(samples, "standard")
    first, again, second = (pixels_of(loader, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(dim=1).all()


def test_the_crop_of_a_photo_does_not_depend_on_the_order(samples: list[Sample]) -> None:
    loader = image_loader(samples, "standard")
    reverse = torch.cat([batch.inputs for batch in loader.iterate(range(len(samples))[::-1], seed=1)])
    assert torch.equal(reverse.flip(0), pixels_of(loader, seed=1))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_photos_lost_during_the_job_are_reported(samples: list[Sample], fault: str, num_workers: int) -> None:
    lost = samples[13].path
    lost.unlink()
    if fault == "broken":
        lost.write_bytes(b"not a photo")
    with ThreadPoolExecutor(2) as executor:
        batches = ImageLoader(samples, PREPROCESSING, 5, executor=executor if num_workers else None)
        with pytest.raises(DataError, match=f"^{lost} was readable when the job began and no longer is: "):
            list(in_order(batches))


def test_an_iteration_that_is_abandoned_reads_no_further_photos(samples: list[Sample]) -> None:
    with ThreadPoolExecutor(1) as executor:
        batches = iter(in_order(ImageLoader(samples, PREPROCESSING, 2, executor=executor)))
        next(batches)
        for sample in samples:
            sample.path.unlink()
    assert len(samples) == 24  # the executor has closed, without an error


@pytest.mark.parametrize(("count", "batch_size"), [(1, 2), (2, 2), (3, 2), (8, 4), (9, 4), (10, 4), (33, 32), (5, 64)])
def test_no_batch_holds_a_single_photo(count: int, batch_size: int) -> None:
    order = shuffled_order(count, batch_size, seed=0)
    sizes = [len(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    assert len(sizes) == num_steps(count, batch_size)
    assert 1 not in sizes or count == 1
    assert len(set(order)) == len(order) == sum(sizes)
    assert count - len(order) == (count > 1 and count % batch_size == 1)


def test_every_seed_gives_another_order() -> None:
    orders = [shuffled_order(100, 8, seed=seed) for seed in (1, 2, 3, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] == orders[3]
    assert all(first != second for first, second in pairwise(orders[:3]))

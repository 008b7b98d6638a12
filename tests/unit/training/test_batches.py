"""Samples → batches: the right photos in the right order, whoever reads them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from classifier.errors import DataError
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, PhotoBatches, in_order, num_steps, shuffled
from classifier.training.scan import Sample
from classifier.vision.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=36, crop=32)


def photo_batches(samples: Sequence[Sample], preset: str = "none", batch_size: int = 5) -> PhotoBatches:
    return PhotoBatches(samples, PREPROCESSING, batch_size, PRESETS[preset])


def pixels_of(batches: PhotoBatches, *, seed: int = 0) -> Tensor:
    return torch.cat([batch.inputs for batch in batches.iterate(range(len(batches)), seed=seed)])


def test_each_photo_comes_once_with_its_pixels_and_label(samples: list[Sample]) -> None:
    batches = list(in_order(photo_batches(samples)))
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5, 4]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [sample.label for sample in samples]
    for pixels, sample in zip(torch.cat([batch.inputs for batch in batches]), samples, strict=True):
        expected = PREPROCESSING.pixels_of(sample.path.read_bytes())
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_the_order_asked_for_is_the_order_that_comes(samples: list[Sample]) -> None:
    order = [23, 0, 11, 11, 5, 16, 2]
    whole = pixels_of(photo_batches(samples))
    batches = list(photo_batches(samples).iterate(order, seed=0))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [samples[index].label for index in order]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), whole[order])


@pytest.mark.parametrize("preset", ["none", "standard"])
@pytest.mark.parametrize("num_workers", [1, 4])
def test_threads_do_not_change_a_pixel(samples: list[Sample], num_workers: int, preset: str) -> None:
    alone = pixels_of(photo_batches(samples, preset))
    with ThreadPoolExecutor(num_workers) as executor:
        batches = PhotoBatches(samples, PREPROCESSING, 5, PRESETS[preset], executor, num_workers)
        assert torch.equal(pixels_of(batches), alone)


def test_pixels_are_uint8_in_channels_last_memory(samples: list[Sample]) -> None:
    for batch in in_order(photo_batches(samples)):
        assert batch.inputs.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert batch.inputs.shape[1:] == (3, 32, 32)
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_batches_keep_their_pixels_when_the_next_ones_come(samples: list[Sample]) -> None:
    with ThreadPoolExecutor(2) as executor:
        kept: list[tuple[Batch, Tensor]] = []
        for batch in in_order(PhotoBatches(samples, PREPROCESSING, 3, executor=executor, num_workers=2)):
            kept.append((batch, batch.inputs.clone()))
    assert all(torch.equal(batch.inputs, before) for batch, before in kept)


def test_crops_differ_between_epochs_and_repeat_with_the_same_seed(samples: list[Sample]) -> None:
    batches = photo_batches(samples, "standard")
    first, again, second = (pixels_of(batches, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(dim=1).all()


def test_a_photos_crop_does_not_depend_on_its_place(samples: list[Sample]) -> None:
    batches = photo_batches(samples, "standard")
    reverse = torch.cat([batch.inputs for batch in batches.iterate(range(len(samples))[::-1], seed=1)])
    assert torch.equal(reverse.flip(0), pixels_of(batches, seed=1))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("harm", ["vanished", "broken"])
def test_a_photo_that_is_lost_on_the_way_is_told(samples: list[Sample], harm: str, num_workers: int) -> None:
    lost = samples[13].path
    lost.unlink()
    if harm == "broken":
        lost.write_bytes(b"not a photo")
    with ThreadPoolExecutor(2) as executor:
        batches = PhotoBatches(samples, PREPROCESSING, 5, executor=executor if num_workers else None)
        with pytest.raises(DataError, match=f"^{lost} could be read when the job began and now can't: "):
            list(in_order(batches))


def test_leaving_early_leaves_nothing_to_read(samples: list[Sample]) -> None:
    with ThreadPoolExecutor(1) as executor:
        batches = iter(in_order(PhotoBatches(samples, PREPROCESSING, 2, executor=executor)))
        next(batches)
        for sample in samples:
            sample.path.unlink()
    assert len(samples) == 24  # the executor has closed, without an error


@pytest.mark.parametrize(("count", "batch_size"), [(1, 2), (2, 2), (3, 2), (8, 4), (9, 4), (10, 4), (33, 32), (5, 64)])
def test_no_step_is_left_with_a_single_photo(count: int, batch_size: int) -> None:
    order = shuffled(count, batch_size, seed=0)
    sizes = [len(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    assert len(sizes) == num_steps(count, batch_size)
    assert 1 not in sizes or count == 1
    assert len(set(order)) == len(order) == sum(sizes)
    assert count - len(order) == (count > 1 and count % batch_size == 1)


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = [shuffled(100, 8, seed=seed) for seed in (1, 2, 3, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] == orders[3]
    assert all(first != second for first, second in pairwise(orders[:3]))

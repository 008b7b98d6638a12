"""Batches: the right photos in the right order, with or without threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from classifier.errors import DataError
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, ImageLoader, load_in_order
from classifier.training.plan import NUM_DRAWS, in_order
from classifier.training.samples import SampleTable
from classifier.vision.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=36, crop=32)


def image_loader(samples: SampleTable, preset: str = "none") -> ImageLoader:
    return ImageLoader(samples, PREPROCESSING, PRESETS[preset])


def pixels_of(loader: ImageLoader, batch_size: int = 5, *, seed: int = 0, epoch: int = 1) -> Tensor:
    """Pixels of all photos in their own order, uint8 (N, 3, S, S)."""
    batches = loader.iterate(in_order(len(loader), batch_size), seed=seed, epoch=epoch)
    return torch.cat([batch.inputs for batch in batches])


def test_every_photo_is_loaded_once_with_its_pixels_and_label(samples: SampleTable) -> None:
    batches = list(load_in_order(image_loader(samples), 5))
    assert sorted(len(batch.labels) for batch in batches) == [4, 5, 5, 5, 5]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [sample.label for sample in samples]
    for pixels, sample in zip(torch.cat([batch.inputs for batch in batches]), samples, strict=True):
        expected = PREPROCESSING.pixels_of(sample.read())
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_batches_follow_the_given_order(samples: SampleTable) -> None:
    order = [np.array([23, 0, 11]), np.array([11, 5, 16, 2])]
    whole = pixels_of(image_loader(samples))
    batches = list(image_loader(samples).iterate(order, seed=0, epoch=1))
    for batch, indices in zip(batches, order, strict=True):
        assert batch.labels.tolist() == [samples[index].label for index in indices]
        assert torch.equal(batch.inputs, whole[indices])


@pytest.mark.parametrize("preset", ["none", "standard"])
@pytest.mark.parametrize("num_workers", [1, 4])
def test_threads_do_not_change_the_pixels(samples: SampleTable, num_workers: int, preset: str) -> None:
    alone = pixels_of(image_loader(samples, preset))
    with ThreadPoolExecutor(num_workers) as executor:
        loader = ImageLoader(samples, PREPROCESSING, PRESETS[preset], executor, num_workers)
        assert torch.equal(pixels_of(loader), alone)


def test_pixels_are_uint8_in_channels_last_memory(samples: SampleTable) -> None:
    for batch in load_in_order(image_loader(samples), 5):
        assert batch.inputs.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert batch.inputs.shape[1:] == (3, 32, 32)
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_later_batches_do_not_overwrite_earlier_ones(samples: SampleTable) -> None:
    with ThreadPoolExecutor(2) as executor:
        kept: list[tuple[Batch, Tensor]] = []
        for batch in load_in_order(ImageLoader(samples, PREPROCESSING, executor=executor, num_workers=2), 3):
            kept.append((batch, batch.inputs.clone()))
    assert all(torch.equal(batch.inputs, before) for batch, before in kept)


def test_crops_vary_between_epochs_and_repeat_with_the_same_seed(samples: SampleTable) -> None:
    loader = image_loader(samples, "standard")
    first, again = pixels_of(loader, seed=1), pixels_of(loader, seed=1)
    assert torch.equal(first, again)
    for second in (pixels_of(loader, seed=2), pixels_of(loader, seed=1, epoch=2)):
        assert (first != second).flatten(1).any(dim=1).all()


def test_the_crop_of_a_photo_does_not_depend_on_the_order(samples: SampleTable) -> None:
    loader = image_loader(samples, "standard")
    (reverse,) = loader.iterate([np.arange(len(samples))[::-1]], seed=1, epoch=1)
    assert torch.equal(reverse.inputs.flip(0), pixels_of(loader, seed=1))


@pytest.mark.parametrize(("preset", "augmented"), [("none", False), ("flip", True), ("strong", True)])
def test_batches_carry_the_draws_that_their_augmentation_needs(
    samples: SampleTable, preset: str, augmented: bool
) -> None:
    (batch,) = image_loader(samples, preset).iterate([np.arange(7)], seed=1, epoch=1)
    assert (None if batch.draws is None else batch.draws.shape) == ((7, NUM_DRAWS) if augmented else None)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_photos_lost_during_the_job_are_reported(samples: SampleTable, fault: str, num_workers: int) -> None:
    lost = samples[13].path
    lost.unlink()
    if fault == "broken":
        lost.write_bytes(b"not a photo")
    with ThreadPoolExecutor(2) as executor:
        loader = ImageLoader(samples, PREPROCESSING, executor=executor if num_workers else None)
        with pytest.raises(DataError, match=f"^{lost} was readable when the job began and no longer is: "):
            list(load_in_order(loader, 5))


def test_an_iteration_that_is_abandoned_reads_no_further_photos(samples: SampleTable) -> None:
    with ThreadPoolExecutor(1) as executor:
        batches = load_in_order(ImageLoader(samples, PREPROCESSING, executor=executor), 2)
        next(batches)
        for sample in samples:
            sample.path.unlink()
    assert len(samples) == 24  # the executor has closed, without an error

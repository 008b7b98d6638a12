"""The torch engine without its CUDA graphs, which need a GPU: batch sizes, buffers, and the artifact's own logits."""

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.engine.cuda import BUCKETS, TorchEngine, bucket_for
from classifier.errors import ConfigError
from classifier.vision import artifact
from classifier.vision.manifest import ModelManifest
from support.servers import SIDE, drawn_pixels, torch_logits


@pytest.fixture
def engine(artifact_folder: Path) -> Iterator[TorchEngine]:
    classifier, _ = artifact.load(artifact_folder)
    engine = TorchEngine(classifier, device=torch.device("cpu"), side=SIDE, buckets=(1, 2, 8))
    yield engine
    engine.close()


@pytest.mark.parametrize(("num_photos", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (33, 64), (64, 64)])
def test_batch_is_padded_to_the_smallest_bucket(num_photos: int, size: int) -> None:
    assert bucket_for(num_photos, BUCKETS) == size


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_logits_of_every_batch_size_equal_the_artifacts(
    engine: TorchEngine, artifact_folder: Path, kind: type[np.generic]
) -> None:
    assert engine.max_batch == 8
    pixels, _ = drawn_pixels(8)
    expected = torch_logits(artifact_folder, pixels)
    # Larger ones first, whose pixels the padding of the smaller ones then holds.
    for size in (8, 7, 3, 2, 1, 5):
        logits = engine.infer(0, pixels[:size].astype(kind))
        assert (logits.shape, logits.dtype) == (expected[:size].shape, np.float32)
        np.testing.assert_allclose(logits, expected[:size], atol=1e-4)


def test_slots_at_once_return_their_own_logits(engine: TorchEngine, artifact_folder: Path) -> None:
    pixels, _ = drawn_pixels(8)
    expected = torch_logits(artifact_folder, pixels)

    def run(slot: int) -> bool:
        parts = [slice(start, start + size) for start in range(6) for size in (1, 2)][slot::2] * 5
        return all(np.allclose(engine.infer(slot, pixels[part]), expected[part], atol=1e-4) for part in parts)

    assert engine.num_slots == 2
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, (0, 1))) == [True, True]


def test_returned_logits_are_not_overwritten_by_the_next_batch(engine: TorchEngine) -> None:
    pixels, _ = drawn_pixels(4)
    first = engine.infer(0, pixels[:2])
    copy = first.copy()
    engine.infer(0, pixels[2:])
    np.testing.assert_array_equal(first, copy)


def test_closed_engine_keeps_no_weights(artifact_folder: Path) -> None:
    classifier, _ = artifact.load(artifact_folder)
    weights = weakref.ref(next(classifier.parameters()))
    engine = TorchEngine(classifier, device=torch.device("cpu"), side=SIDE, buckets=(1,))
    del classifier
    engine.close()
    engine.close()
    gc.collect()
    assert weights() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the behaviour without a GPU")
def test_a_gpu_that_torch_does_not_see_is_an_error(artifact_folder: Path) -> None:
    with pytest.raises(ConfigError, match="this host has a GPU"):
        TorchEngine.open(artifact_folder, ModelManifest.read(artifact_folder))

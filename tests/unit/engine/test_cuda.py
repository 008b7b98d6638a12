"""The torch engine: batch sizes, and the artifact's own logits. CUDA graphs need a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.engine.cuda import BUCKETS, TorchEngine, bucket_for
from classifier.vision import artifact
from classifier.vision.manifest import ModelManifest
from support.servers import SIDE, drawn_pixels, torch_logits


@pytest.mark.parametrize(("num_photos", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (33, 64), (64, 64)])
def test_batch_is_padded_to_the_smallest_bucket(num_photos: int, size: int) -> None:
    assert bucket_for(num_photos, BUCKETS) == size


def test_logits_equal_the_artifacts(artifact_folder: Path) -> None:
    classifier, _ = artifact.load(artifact_folder)
    engine = TorchEngine(classifier, device=torch.device("cpu"), side=SIDE, buckets=(1, 4))
    assert (engine.num_slots, engine.max_batch) == (1, 4)
    pixels, _ = drawn_pixels(3)
    expected = torch_logits(artifact_folder, pixels)
    np.testing.assert_allclose(engine.infer(0, pixels), expected, atol=1e-4)
    np.testing.assert_allclose(engine.infer(0, pixels.astype(np.float32)), expected, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_graphs_return_the_artifacts_logits_at_every_batch_size(artifact_folder: Path) -> None:
    engine = TorchEngine.open(artifact_folder, ModelManifest.read(artifact_folder))
    pixels, _ = drawn_pixels(64)
    expected = torch_logits(artifact_folder, pixels)
    for size in (1, 2, 3, 7, 33, 64, 1):
        logits = engine.infer(0, pixels[:size])
        np.testing.assert_allclose(logits, expected[:size], atol=0.05)
        assert (logits.argmax(1) == expected[:size].argmax(1)).all()
    np.testing.assert_allclose(engine.infer(0, pixels[:3].astype(np.float32)), expected[:3], atol=0.05)

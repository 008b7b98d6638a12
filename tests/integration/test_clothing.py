"""Accuracy with real photos and pretrained weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.vision import artifact
from support.jobs import FROZEN, Platform

pytestmark = [pytest.mark.slow, pytest.mark.gate]


def accuracy_of(folder: Path, photos: Path) -> float:
    """Return the share of photos that an artifact, loaded from its folder, classifies correctly."""
    classifier, manifest = artifact.load(folder)
    right = total = 0
    for label, item in enumerate(manifest.classes):
        files = (photos / item.folder).iterdir()
        pixels = np.stack([manifest.preprocessing.pixels_of(path.read_bytes()) for path in files])
        with torch.inference_mode():
            logits = classifier(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        right += int((logits.argmax(dim=1) == label).sum())
        total += len(pixels)
    return right / total


def copy_first(source: Path, destination: Path, photos_per_class: int) -> Path:
    for folder in source.iterdir():
        (destination / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:photos_per_class]:
            shutil.copy(photo, destination / folder.name)
    return destination


def test_few_real_photos_are_enough(
    platform: Platform, clothing_photos: Path, imagenet_weights: Path, tmp_path: Path
) -> None:
    channels = {
        "train": copy_first(clothing_photos / "train", tmp_path / "train", 20),
        "validation": copy_first(clothing_photos / "validation", tmp_path / "validation", 5),
        "test": copy_first(clothing_photos / "test", tmp_path / "test", 8),
    }
    job = platform.train({**channels, "pretrained": imagenet_weights}, **{**FROZEN, "epochs": "10"})
    assert (job.exit_code, job.failure) == (0, None)
    assert job.metrics["test:accuracy"] > 0.6  # by chance it would be 0.1
    assert accuracy_of(job.paths.model, channels["test"]) == pytest.approx(job.metrics["test:accuracy"])


def test_clothing_is_classified_as_well_as_with_a_reference_loop(
    platform: Platform, clothing_photos: Path, imagenet_weights: Path
) -> None:
    channels = {name: clothing_photos / name for name in ("train", "validation", "test")}
    job = platform.train({**channels, "pretrained": imagenet_weights}, **FROZEN)
    assert job.metrics["test:accuracy"] >= 0.87
    assert job.manifest["calibration"]["ece_after"] < 0.06
    assert accuracy_of(job.paths.model, channels["test"]) == pytest.approx(job.metrics["test:accuracy"])

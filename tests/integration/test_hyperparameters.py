"""Hyperparameters take effect in whole training jobs."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from classifier import host
from classifier.errors import ImageError
from classifier.training import epochs, fit
from classifier.training.loop import EvaluationResult
from classifier.vision import artifact
from classifier.vision.images import decode
from support.drawing import draw_photo, encode, write_classes
from support.jobs import Job, Platform
from support.marks import GATE

COUNTS = {"cross": 12, "disc": 6, "square": 2}


def write_unbalanced_classes(folder: Path) -> Path:
    for seed, (name, count) in enumerate(COUNTS.items()):
        write_classes(folder, classes=(name,), photos_per_class=count, seed=seed)
    return folder


def training_logits(job: Job, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of all training photos as one batch, with the job's weights in training mode, and labels."""
    classifier, manifest = artifact.load(job.paths.model)
    files = [(path, label) for label, name in enumerate(COUNTS) for path in sorted((folder / name).iterdir())]
    pixels = [torch.from_numpy(manifest.preprocessing.pixels_of(path.read_bytes()).copy()) for path, _ in files]
    with torch.no_grad():
        logits = classifier.train()(torch.stack(pixels).permute(0, 3, 1, 2))
    return logits, torch.tensor([label for _, label in files])


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("label_smoothing", ["0", "0.4"])
def test_the_training_loss_has_the_class_weights_and_the_label_smoothing(
    platform: Platform, tmp_path: Path, class_weights: str, label_smoothing: str
) -> None:
    train = write_unbalanced_classes(tmp_path / "train")
    channels = {"train": train, "validation": write_classes(tmp_path / "validation", photos_per_class=1)}
    # So small a learning rate that the saved weights are those of the only step.
    job = platform.train(
        channels,
        model="resnet18",
        lr="1e-12",
        batch_size="64",
        augmentation="none",
        precision="fp32",
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )
    assert job.exit_code == 0, job.log
    weight = torch.tensor([20 / (3 * count) for count in COUNTS.values()]) if class_weights == "balanced" else None
    logits, labels = training_logits(job, train)
    losses = {
        (kind, smoothing): F.cross_entropy(
            logits, labels, weight if kind == class_weights else None, label_smoothing=smoothing
        ).item()
        for kind in (class_weights, "ignored")
        for smoothing in (float(label_smoothing), 0.2)
    }
    expected = losses.pop((class_weights, float(label_smoothing)))
    assert job.metrics["train:loss"] == pytest.approx(expected, rel=1e-3)
    ignored = [loss for (kind, _), loss in losses.items() if kind == class_weights or weight is not None]
    assert all(abs(loss - expected) > 3e-3 * expected for loss in ignored), "an ignored hyperparameter would show"


@pytest.mark.parametrize(
    ("metric", "best"),
    [("validation:loss", 2), ("validation:accuracy", 3), ("validation:f1", 1), ("validation:top5", 4)],
)
def test_the_best_epoch_is_chosen_by_the_best_metric(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch, metric: str, best: int
) -> None:
    # Metrics that no real training reliably has: each is best in another epoch.
    rows = [(0.5, 0.5, 0.6, 0.8), (0.4, 0.4, 0.6, 0.4), (0.6, 0.7, 0.6, 0.4), (0.7, 0.5, 0.9, 0.4)]
    names = ("loss", "accuracy", "top5", "f1")
    confusion = torch.eye(3, dtype=torch.int64)
    evaluations = [EvaluationResult(*row, confusion, logits=torch.eye(3), labels=torch.arange(3)) for row in rows]
    remaining = iter(evaluations)
    monkeypatch.setattr(epochs, "evaluate", lambda *_, **__: SimpleNamespace(result=lambda _: next(remaining)))
    job = platform.train({"train": image_folder}, epochs="4", best_metric=metric)
    assert job.exit_code == 0, job.log
    assert f"best        epoch {best}, by {metric}" in job.log
    expected = evaluations[best - 1].metrics("validation", names)
    assert {name: job.metrics[name] for name in expected} == expected
    assert {name: job.manifest["metrics"][name] for name in expected} == expected


def test_the_seed_changes_the_split_the_order_and_the_initial_weights(platform: Platform, image_folder: Path) -> None:
    def train(seed: str) -> tuple[set[str], dict[str, torch.Tensor], list[str]]:
        # Without a step of any size, the weights are the initial ones, and mistakes.json names validation photos.
        job = platform.train({"train": image_folder}, seed=seed, lr="1e-12", augmentation="none")
        assert job.exit_code == 0, job.log
        mistakes = (job.paths.output_data / "mistakes.json").read_text(encoding="utf-8")
        validation = {line.split('"')[3] for line in mistakes.splitlines() if '"path"' in line}
        classifier, _ = artifact.load(job.paths.model)
        steps = (job.paths.output_data / "steps.csv").read_text(encoding="utf-8").splitlines()[1:]
        return validation, classifier.state_dict(), [row.split(",")[2] for row in steps]

    validation, weights, losses = train("3")
    same_validation, same_weights, same_losses = train("3")
    assert (same_validation, same_losses) == (validation, losses)
    assert all(torch.equal(value, same_weights[name]) for name, value in weights.items())
    other_validation, other_weights, other_losses = train("4")
    assert other_validation != validation
    assert other_losses != losses
    assert not torch.equal(other_weights["network.features.0.weight"], weights["network.features.0.weight"])


@pytest.mark.parametrize(("num_workers", "num_threads"), [("auto", 2), pytest.param("3", 3, marks=GATE), ("0", 1)])
def test_a_job_keeps_to_the_quota_of_its_container(
    platform: Platform,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: str,
    num_threads: int,
) -> None:
    created: list[int] = []

    class RecordedExecutor(fit.ThreadPoolExecutor):
        def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
            created.append(max_workers)
            super().__init__(max_workers, thread_name_prefix)

    (tmp_path / "cpu.max").write_text("200000 100000\n")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(fit, "ThreadPoolExecutor", RecordedExecutor)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        job = platform.train({"train": image_folder}, num_workers=num_workers)
    finally:
        torch.set_num_threads(before)
    assert job.exit_code == 0, job.log
    assert "device      CPU, 2 threads, " in job.log
    assert created == [num_threads]


def test_truncated_photos_are_rejected_again_after_a_job_that_loads_them(
    platform: Platform, image_folder: Path
) -> None:
    whole = encode(draw_photo(640, 480))
    cut = whole[: len(whole) // 2]
    (image_folder / "disc" / "cut.jpg").write_bytes(cut)
    assert platform.train({"train": image_folder}, truncated_images="load").exit_code == 0
    with pytest.raises(ImageError, match="truncated"):
        decode(cut)
    assert platform.train({"train": image_folder}, truncated_images="load", model="resnet1").exit_code == 1
    with pytest.raises(ImageError, match="truncated"):
        decode(cut)

"""Whole training jobs: from channels to artifact, metrics and plots."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from classifier.contract.metrics import METRICS
from classifier.reporting.theme import percent
from classifier.vision import artifact
from support.drawing import draw_photo, encode, write_classes
from support.jobs import Platform
from support.servers import write_artifact


@pytest.fixture
def channels(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_classes(tmp_path / name, seed=seed) for seed, name in enumerate(("train", "validation", "test"))
    }


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_shapes_are_learned_and_all_outputs_are_written(platform: Platform, channels: dict[str, Path]) -> None:
    platform.draws_plots = True
    job = platform.train(channels, model="resnet18", epochs="6", lr="0.001", augmentation="flip")
    assert (job.exit_code, job.failure) == (0, None)
    assert job.metrics["test:accuracy"] > 0.9
    assert set(job.metrics) == set(METRICS)
    assert {path.name for path in job.paths.model.iterdir()} >= {"model.safetensors", "model.json"}
    assert all(path.stat().st_mode & 0o004 for path in job.paths.model.iterdir()), "another user may serve it"
    history = read_csv(job.paths.output_data / "history.csv")
    assert [row["epoch"] for row in history] == list("123456")
    for picture in ("curves.png", "confusion_matrix.png"):
        with Image.open(job.paths.output_data / picture) as image:
            assert min(image.size) > 300
    assert read_csv(job.paths.output_data / "bad_images.csv") == []
    assert re.search(r"^calibration skipped: \d+ validation photos, and at least 50 are needed$", job.log, re.MULTILINE)
    assert job.manifest["calibration"] is None, job.log


def test_calibration_is_fitted_on_validation_photos_and_reported(platform: Platform, tmp_path: Path) -> None:
    counts = {"train": 8, "validation": 18, "test": 6}
    channels = {
        name: write_classes(tmp_path / name, photos_per_class=count, seed=seed)
        for seed, (name, count) in enumerate(counts.items())
    }
    job = platform.train(channels, lr="0.01")
    assert job.exit_code == 0, job.log
    calibration = job.manifest["calibration"]
    assert calibration["num_photos"] == 54
    scaled = rf"temperature {calibration['temperature']:.3g}, fitted on 54 validation photos; .*% → .*%"
    unscaled = (
        r"not needed: the fitted temperature does not lower the expected calibration error of 54 validation photos, .*%"
    )
    line = rf"^calibration {unscaled if calibration['temperature'] == 1 else scaled}$"
    assert re.search(line, job.log, re.MULTILINE)
    summary = json.loads((job.paths.output_data / "training.json").read_bytes())
    assert summary["calibration"] == calibration
    classifier, manifest = artifact.load(job.paths.model)

    def logits_of(photos: Path) -> torch.Tensor:
        pixels = [manifest.preprocessing.pixels_of(path.read_bytes()) for path in sorted(photos.rglob("*.*"))]
        with torch.inference_mode():
            return classifier(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).double()

    labels = torch.arange(3).repeat_interleave(18)
    logits = logits_of(channels["validation"])
    losses = [torch.nn.functional.cross_entropy(one, labels) for one in (logits, logits / calibration["temperature"])]
    assert losses[1] < losses[0] or calibration["temperature"] == 1
    mistakes = json.loads((job.paths.output_data / "mistakes.json").read_bytes())
    probabilities = (logits_of(channels["test"]) / calibration["temperature"]).softmax(dim=1).max(dim=1).values
    assert mistakes["photos"]
    for photo in mistakes["photos"]:
        assert (probabilities - photo["confidence"]).abs().min() < 1e-3
    after = percent(summary["calibration_errors"][1])
    page = (job.paths.output_data / "report.html").read_text(encoding="utf-8")
    is_scaled = calibration["temperature"] != 1
    where = "On the test photos the expected calibration error is" if is_scaled else "on the test photos it is"
    assert f"{where} {after}" in page


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v3_small", "mnasnet0_5"])
def test_architectures_designed_for_long_trainings_learn_in_a_short_one(
    platform: Platform, tmp_path: Path, model: str
) -> None:
    channels = {
        name: write_classes(tmp_path / name, photos_per_class=count, seed=seed)
        for seed, (name, count) in enumerate({"train": 80, "validation": 10, "test": 20}.items())
    }
    job = platform.train(channels, model=model, epochs="12", lr="0.003", augmentation="flip", image_size="64")
    assert job.metrics["test:accuracy"] > 0.8


# A small architecture of each family, and its smallest input size.
FAMILIES = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32, "googlenet": 32, "inception_v3": 96,
    "maxvit_t": 224, "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_y_400mf": 32,
    "resnet18": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "swin_t": 32, "swin_v2_t": 32, "vgg11_bn": 32,
    "vit_b_32": 32,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_every_family_is_trained_debugged_profiled_tested_and_converted(
    platform: Platform, channels: dict[str, Path], model: str
) -> None:
    size = str(FAMILIES[model])
    features = {"debug": "true", "profile": "true", "optimize_for_cpu": "true"}
    platform.draws_plots = True
    job = platform.train(channels, model=model, image_size=size, **features)
    assert (job.exit_code, job.failure) == (0, None)
    assert "warning" not in job.log.lower(), job.log
    assert "test:accuracy" in job.metrics
    assert (job.paths.model / "openvino.xml").is_file()


def test_each_metric_is_found_in_the_log_by_its_regex(platform: Platform, channels: dict[str, Path]) -> None:
    job = platform.train(channels, epochs="2")
    last = {name: float(re.findall(metric.regex, job.log)[-1]) for name, metric in METRICS.items()}
    history = read_csv(job.paths.output_data / "history.csv")[-1]
    for name, value in last.items():
        expected = job.metrics[name] if name.startswith("test:") else float(history[name])
        assert value == pytest.approx(expected, abs=5e-5)
    for name in METRICS:
        times = 1 if name.startswith("test:") else 2
        assert len(re.findall(METRICS[name].regex, job.log)) == times, f"{name} is printed once an epoch"


def test_the_loaded_artifact_has_the_printed_accuracy(platform: Platform, channels: dict[str, Path]) -> None:
    job = platform.train(channels, epochs="3")
    classifier, manifest = artifact.load(job.paths.model)
    right = total = 0
    for label, item in enumerate(manifest.classes):
        for path in (channels["test"] / item.folder).iterdir():
            pixels = torch.from_numpy(manifest.preprocessing.pixels_of(path.read_bytes()).copy())
            with torch.inference_mode():
                logits = classifier(pixels.permute(2, 0, 1)[None])
            right += int(logits.argmax() == label)
            total += 1
    assert right / total == pytest.approx(job.metrics["test:accuracy"])


def test_the_same_seed_gives_the_same_bytes(platform: Platform, image_folder: Path) -> None:
    def train(seed: str) -> tuple[bytes, bytes]:
        job = platform.train({"train": image_folder}, seed=seed, augmentation="strong")
        assert job.exit_code == 0
        return (job.paths.model / "model.safetensors").read_bytes(), (job.paths.model / "model.json").read_bytes()

    first = train("3")
    assert train("3") == first
    assert train("4")[0] != first[0]


def test_validation_is_split_from_train_if_there_is_no_channel(platform: Platform, image_folder: Path) -> None:
    job = platform.train({"train": image_folder}, validation_split="0.25")
    assert "photos      train 18 · validation 6 in 3 classes" in job.log
    assert "test:accuracy" not in job.metrics


def test_labels_and_class_names_come_from_folder_names(platform: Platform, image_folder: Path) -> None:
    (image_folder / "cross").rename(image_folder / "069.French_bulldog")
    (image_folder / "disc").rename(image_folder / "n02085620-Chihuahua")
    (image_folder / "square").rename(image_folder / "t-shirt")
    job = platform.train({"train": image_folder})
    assert [(item["label"], item["class_name"]) for item in job.manifest["classes"]] == [
        ("069", "French_bulldog"),
        ("n02085620", "Chihuahua"),
        ("t-shirt", "t-shirt"),
    ]


def test_bad_photos_are_skipped_and_listed(platform: Platform, image_folder: Path) -> None:
    whole = (image_folder / "disc" / "0.jpg").read_bytes()
    (image_folder / "disc" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (image_folder / "disc" / "empty.png").write_bytes(b"")
    (image_folder / "disc" / "notes.txt").write_text("no photo")
    (image_folder / "README.md").write_text("unexpected")
    job = platform.train({"train": image_folder}, max_bad_images="0.1")
    assert job.exit_code == 0
    listed = {row["path"]: row["reason"] for row in read_csv(job.paths.output_data / "bad_images.csv")}
    assert set(listed) == {"disc/cut.jpg", "disc/empty.png"}
    assert "truncated" in listed["disc/cut.jpg"].lower()
    assert listed["disc/empty.png"] == "not an image: the file is empty"
    assert "unreadable photos skipped: 2 (disc/cut.jpg (" in job.log
    assert "README.md" in job.log
    assert "notes.txt" in job.log


def test_truncated_photos_are_loaded_if_configured(platform: Platform, image_folder: Path) -> None:
    whole = encode(draw_photo(640, 480))
    (image_folder / "disc" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    job = platform.train({"train": image_folder}, truncated_images="load")
    assert job.exit_code == 0
    assert read_csv(job.paths.output_data / "bad_images.csv") == []
    assert "train 19 · validation 6" in job.log


def test_photos_in_two_channels_are_reported(platform: Platform, channels: dict[str, Path]) -> None:
    shutil.copy(channels["train"] / "disc" / "0.jpg", channels["test"] / "disc" / "again.jpg")
    job = platform.train(channels)
    assert job.exit_code == 0
    assert "photos in two channels" in job.log
    assert "test/disc/again.jpg is train/disc/0.jpg" in job.log
    assert read_csv(job.paths.output_data / "leaks.csv") == [
        {"channel": "test", "path": "disc/again.jpg", "also_in_channel": "train", "also_in_path": "disc/0.jpg"}
    ]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("pretrained") / "model", architecture="mobilenet_v3_small")


@pytest.mark.parametrize("augmentation", ["none", "flip", "standard"])
def test_a_frozen_backbone_keeps_its_weights(
    platform: Platform, channels: dict[str, Path], pretrained: Path, augmentation: str
) -> None:
    job = platform.train(
        {**channels, "pretrained": pretrained},
        model="mobilenet_v3_small",
        pretrained="true",
        freeze="backbone",
        augmentation=augmentation,
    )
    assert (job.exit_code, job.failure) == (0, None)
    before = load_file(pretrained / "model.safetensors")
    after = load_file(job.paths.model / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.3.weight", "classifier.3.bias"}


def test_early_stopping_and_the_best_epoch(platform: Platform, channels: dict[str, Path]) -> None:
    # So small a learning rate that no epoch is better than the first for long.
    job = platform.train(
        channels, epochs="30", lr="1e-12", early_stopping_patience="2", best_metric="validation:accuracy"
    )
    history = read_csv(job.paths.output_data / "history.csv")
    best = int(re.findall(r"^best +epoch (\d+), by", job.log, re.MULTILINE)[0])
    assert len(history) == best + 2 < 30
    assert "stopped     early: 2 epochs without a better validation:accuracy" in job.log


def test_divergence_keeps_the_best_epoch(platform: Platform, channels: dict[str, Path]) -> None:
    job = platform.train(
        channels, model="squeezenet1_1", optimizer="sgd", lr="10", epochs="60", warmup_epochs="59", precision="fp32"
    )
    assert job.exit_code == 0
    assert "warning: training diverged in epoch" in job.log
    assert all(torch.isfinite(tensor).all() for tensor in load_file(job.paths.model / "model.safetensors").values())


def test_all_config_files_of_the_platform_are_accepted(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder})
    platform.write_config("checkpointconfig.json", '{"LocalPath": "/opt/ml/checkpoints"}')
    platform.write_config(
        "debughookconfig.json",
        json.dumps(
            {
                "S3OutputPath": "s3://bucket/prefix",
                "LocalPath": "/opt/ml/output/tensors",
                "HookParameters": {"save_interval": "2"},
                "CollectionConfigurations": [{"CollectionName": "weights", "CollectionParameters": {"a": "b"}}],
            }
        ),
    )
    platform.write_config(
        "profilerconfig.json",
        '{"ProfilingParameters": {"ProfilerEnabled": true, "LocalPath": "/opt/ml/output/profiler"}}',
    )
    platform.write_config("init-config.json", "not read by training, and not JSON")
    assert platform.run().exit_code == 0


def test_the_model_is_converted_for_a_cpu_and_the_engines_are_compared(
    platform: Platform, channels: dict[str, Path]
) -> None:
    job = platform.train(channels, optimize_for_cpu="true")
    assert job.exit_code == 0
    assert "warning" not in job.log, job.log
    assert {path.name for path in job.paths.model.iterdir()} >= {"openvino.xml", "openvino.bin", "engine.json"}
    table = [line.split() for line in job.log.splitlines() if line.startswith("engines ")]
    assert table[0][1:3] == ["engine", "images/s"]
    assert [row[1:3] for row in table[1:3]] == [["torch", "fp32"], ["OpenVINO", "f32"]]
    assert sum("← served on a CPU" in line for line in job.log.splitlines()) == 1

"""Mistakes of a user, and the exact first line that the platform shows for each."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision import models

from support.drawing import write_classes
from support.jobs import Platform

Spoil = Callable[[Path], None]


def first_line(platform: Platform) -> str:
    """Return the first line of the failure file, after checking what holds for every mistake of a user."""
    job = platform.run()
    assert job.exit_code == 1
    assert job.failure is not None
    assert "Traceback" not in job.failure + job.log
    assert not (job.paths.model / "model.json").exists()
    line = job.failure.splitlines()[0].replace(str(platform.paths.base), "OPT_ML")
    assert job.failure.strip() == job.failure.splitlines()[0]
    return line


KNOWN = (
    "model, pretrained, freeze, image_size, epochs, batch_size, lr, scheduler, warmup_epochs, optimizer, momentum, "
    "weight_decay, eps, sync_batchnorm, precision, augmentation, label_smoothing, class_weights, "
    "early_stopping_patience, best_metric, validation_split, truncated_images, max_bad_images, num_workers, "
    "ranks_per_host, optimize_for_cpu, cpu_engine, checkpoint_interval_s, debug, debug_stop, profile, seed"
)

HYPERPARAMETERS = [
    ({"pretrained": "maybe"}, "hyperparameter pretrained='maybe': should be true or false"),
    ({"freeze": "head"}, "hyperparameter freeze='head': should be 'none' or 'backbone'"),
    ({"image_size": "31"}, "hyperparameter image_size='31': should be greater than or equal to 32"),
    ({"image_size": "1025"}, "hyperparameter image_size='1025': should be less than or equal to 1024"),
    ({"epochs": "0"}, "hyperparameter epochs='0': should be greater than or equal to 1"),
    ({"epochs": "ten"}, "hyperparameter epochs='ten': should be a valid integer, unable to parse string as an integer"),
    ({"epochs": "1.5"}, "hyperparameter epochs='1.5': should be a valid integer, unable to parse string as an integer"),
    ({"batch_size": "1"}, "hyperparameter batch_size='1': should be greater than or equal to 2"),
    ({"lr": "0"}, "hyperparameter lr='0': should be greater than 0"),
    ({"lr": "11"}, "hyperparameter lr='11': should be less than or equal to 10"),
    ({"lr": "nan"}, "hyperparameter lr='nan': should be a finite number"),
    (
        {"scheduler": "linear"},
        "hyperparameter scheduler='linear': should be 'constant', 'step', 'cosine' or 'onecycle'",
    ),
    ({"warmup_epochs": "-1"}, "hyperparameter warmup_epochs='-1': should be greater than or equal to 0"),
    ({"warmup_epochs": "1"}, "hyperparameters: warmup_epochs=1 should be less than epochs=1"),
    ({"optimizer": "rmsprop"}, "hyperparameter optimizer='rmsprop': should be 'sgd', 'adam' or 'adamw'"),
    ({"momentum": "1"}, "hyperparameter momentum='1': should be less than 1"),
    ({"weight_decay": "2"}, "hyperparameter weight_decay='2': should be less than or equal to 1"),
    ({"eps": "0"}, "hyperparameter eps='0': should be greater than 0"),
    ({"precision": "int8"}, "hyperparameter precision='int8': should be 'auto', 'fp32', 'bf16' or 'fp16'"),
    ({"augmentation": "max"}, "hyperparameter augmentation='max': should be 'none', 'flip', 'standard' or 'strong'"),
    ({"label_smoothing": "1"}, "hyperparameter label_smoothing='1': should be less than 1"),
    ({"class_weights": "equal"}, "hyperparameter class_weights='equal': should be 'none' or 'balanced'"),
    (
        {"early_stopping_patience": "-1"},
        "hyperparameter early_stopping_patience='-1': should be greater than or equal to 0",
    ),
    (
        {"best_metric": "accuracy"},
        "hyperparameter best_metric='accuracy': should be one of validation:loss, validation:accuracy, "
        "validation:top5, validation:f1",
    ),
    ({"validation_split": "0.95"}, "hyperparameter validation_split='0.95': should be less than or equal to 0.9"),
    (
        {"checkpoint_interval_s": "-1"},
        "hyperparameter checkpoint_interval_s='-1': should be greater than or equal to 0",
    ),
    ({"seed": "-1"}, "hyperparameter seed='-1': should be greater than or equal to 0"),
    ({"num_workers": "many"}, "hyperparameter num_workers='many': should be 'auto' or a whole number from 0 to 256"),
    ({"truncated_images": "keep"}, "hyperparameter truncated_images='keep': should be 'skip' or 'load'"),
    ({"max_bad_images": "5"}, "hyperparameter max_bad_images='5': should be less than or equal to 1"),
    (
        {"lr": "0", "epochs": "0"},
        "hyperparameter epochs='0': should be greater than or equal to 1; "
        "hyperparameter lr='0': should be greater than 0",
    ),
    ({"optimzer": "sgd"}, f"unknown hyperparameter 'optimzer' (did you mean 'optimizer'?); choose from {KNOWN}"),
    ({"wheels": "4"}, f"unknown hyperparameter 'wheels'; choose from {KNOWN}"),
    (
        {"lr": "0.1", "learning-rate": "0.2"},
        "hyperparameter 'lr' is given twice: 'learning-rate' is another name for it",
    ),
    (
        {"freeze": "backbone"},
        "hyperparameters: freeze=backbone needs pretrained weights, but pretrained=false: change one of them",
    ),
    (
        {"model": "resnet81"},
        "unknown model 'resnet81' (did you mean 'resnet18'?); `train --models` lists all 80",
    ),
    (
        {"model": "alexnet"},
        "alexnet can't take image_size=32, raise it: "
        "Given input size: (256x1x1). Calculated output size: (256x0x0). Output size is too small",
    ),
    (
        {"model": "vit_b_16", "image_size": "40"},
        "vit_b_16 can't take image_size=40: Input shape indivisible by patch size!",
    ),
]


@pytest.mark.parametrize(("hyperparameters", "line"), HYPERPARAMETERS, ids=[str(row[0]) for row in HYPERPARAMETERS])
def test_hyperparameters(platform: Platform, image_folder: Path, hyperparameters: dict[str, str], line: str) -> None:
    platform.lay_out({"train": image_folder}, hyperparameters)
    assert first_line(platform) == f"ConfigError: {line}"


@pytest.mark.parametrize("message", ["CUDA out of memory.", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_memory_that_is_too_small(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def train_epoch(*_: object, **__: object) -> float:
        raise RuntimeError(message)

    monkeypatch.setattr("classifier.training.loop.Trainer.train_epoch", train_epoch)
    platform.lay_out({"train": image_folder})
    assert re.fullmatch(
        "ConfigError: the (GPU|machine)'s memory is too small for batch_size=8 of image_size=32 with squeezenet1_1: "
        "lower one of them, or choose a larger instance type",
        first_line(platform),
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a GPU")
def test_gpu_that_torch_does_not_see(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Tue Jul 29 2025\n")
    monkeypatch.setattr("classifier.contract.driver._VERSION_FILE", version)
    platform.lay_out({"train": image_folder})
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.g5.xlarge"}
    platform.write_config("resourceconfig.json", json.dumps(resources))
    assert re.fullmatch(
        r"ConfigError: this host has a GPU, and torch \S+ can't use it: \S.*\. On your own machine, start the "
        "container with --gpus all; to run on the CPU, set CUDA_VISIBLE_DEVICES to an empty string",
        first_line(platform),
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is fine on a GPU")
def test_fp16_without_a_gpu(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder}, {"precision": "fp16"})
    assert first_line(platform) == "ConfigError: precision=fp16 needs a GPU, and there is none: use auto, bf16 or fp32"


CONFIG = "OPT_ML/input/config"
CONFIG_FILES = [
    (
        "hyperparameters.json",
        "{'lr': 1}",
        f"{CONFIG}/hyperparameters.json is not JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    ("hyperparameters.json", "[]", f"{CONFIG}/hyperparameters.json should hold a JSON object, not list"),
    (
        "inputdataconfig.json",
        "",
        f"{CONFIG}/inputdataconfig.json is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    (
        "inputdataconfig.json",
        "{}",
        f"there is no channel 'train': {CONFIG}/inputdataconfig.json lists no channels; "
        "add one with a folder per class",
    ),
    (
        "inputdataconfig.json",
        '{"test": {}}',
        f"there is no channel 'train': {CONFIG}/inputdataconfig.json lists only 'test'; "
        "add one with a folder per class",
    ),
    (
        "inputdataconfig.json",
        '{"train": {}, "valid": {}}',
        "unknown channel 'valid' (did you mean 'validation'?); choose from train, validation, test, pretrained, model",
    ),
    (
        "inputdataconfig.json",
        '{"train": {"TrainingInputMode": "Pipe"}}',
        "channel 'train' uses Pipe mode, and a folder of photos can't be read from a pipe: "
        "set TrainingInputMode to File or FastFile",
    ),
    (
        "inputdataconfig.json",
        '{"train": {"TrainingInputMode": "Fast"}}',
        f"{CONFIG}/inputdataconfig.json: channel 'train': TrainingInputMode: "
        "Input should be 'File', 'FastFile' or 'Pipe', not 'Fast'",
    ),
    (
        "resourceconfig.json",
        '{"current_host": "algo-3", "hosts": ["algo-1"]}',
        f"{CONFIG}/resourceconfig.json: current_host 'algo-3' is not one of hosts ['algo-1']",
    ),
]


@pytest.mark.parametrize(("name", "content", "line"), CONFIG_FILES)
def test_config_files(platform: Platform, image_folder: Path, name: str, content: str, line: str) -> None:
    platform.lay_out({"train": image_folder})
    platform.write_config(name, content)
    assert first_line(platform) == f"ConfigError: {line}"


def empty(train: Path) -> None:
    for folder in list(train.iterdir()):
        for photo in folder.iterdir():
            photo.unlink()
        folder.rmdir()


def without_class_folders(train: Path) -> None:
    for folder in list(train.iterdir()):
        for photo in folder.iterdir():
            photo.rename(train / f"{folder.name}{photo.name}")
        folder.rmdir()


def empty_class_folders(train: Path) -> None:
    for photo in train.glob("*/*"):
        photo.unlink()


def one_class(train: Path) -> None:
    for name in ("disc", "square"):
        (train / name).rename(train.parent / name)


def one_photo_per_class(train: Path) -> None:
    for photo in train.glob("*/[1-9].jpg"):
        photo.unlink()


def all_corrupt(train: Path) -> None:
    for photo in train.glob("*/*"):
        photo.write_bytes(b"no photo")


def a_fifth_corrupt(train: Path) -> None:
    for photo in train.glob("*/[01].jpg"):
        photo.write_bytes(b"\0" * 99)


def a_class_corrupt(train: Path) -> None:
    for photo in train.glob("disc/*"):
        photo.write_bytes(b"")


LISTED = "all are listed in OPT_ML/output/data/bad_images.csv"
FOLDERS = [
    (empty, "channel 'train': OPT_ML/input/data/train holds no class folders: add one folder of photos for each class"),
    (
        without_class_folders,
        "channel 'train': OPT_ML/input/data/train holds photos but no class folders: "
        "put the photos of each class into a folder of its own",
    ),
    (empty_class_folders, "channel 'train': no photos in its class folders; add photos to each"),
    (one_class, "channel 'train': its only class is 'cross'; add a folder for each further class"),
    (
        one_photo_per_class,
        "channel 'train': one photo per class leaves none for validation; add photos",
    ),
    (
        all_corrupt,
        "channel 'train': 24 of 24 photos can't be read, and none is left; for example cross/0.jpg: "
        f"not an image: 8 bytes that begin with b'no photo'; {LISTED}",
    ),
    (
        a_fifth_corrupt,
        "channel 'train': 6 of 24 photos can't be read, and max_bad_images=0.05 allows 1; for example cross/0.jpg: "
        f"not an image: 99 zero bytes; {LISTED}",
    ),
]


@pytest.mark.parametrize(("spoil", "line"), FOLDERS)
def test_folders(platform: Platform, image_folder: Path, spoil: Spoil, line: str) -> None:
    spoil(image_folder)
    platform.lay_out({"train": image_folder})
    assert first_line(platform) == f"DataError: {line}"


def test_a_class_without_readable_photos(platform: Platform, image_folder: Path) -> None:
    a_class_corrupt(image_folder)
    platform.lay_out({"train": image_folder}, {"max_bad_images": "0.5"})
    line = "DataError: channel 'train': no readable photo in 'disc'; add some or remove the folder"
    assert first_line(platform) == line


def test_a_channel_whose_folder_is_missing(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder})
    platform.write_config("inputdataconfig.json", json.dumps({"train": {}, "test": {}}))
    line = "DataError: channel 'test': its folder OPT_ML/input/data/test does not exist"
    assert first_line(platform) == line


NO_TORCH = """
import sys
from classifier.train import main
code = main([])
print("torch" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("resourceconfig.json", '{"current_host": "algo-1", "hosts": []}', "/resourceconfig.json: hosts: "),
        ("inputdataconfig.json", '{"train": {}, "test": {}}', "channel 'test': its folder "),
        ("inputdataconfig.json", None, "/inputdataconfig.json is missing: it lists the job's channels, of which "),
    ],
)
def test_fault_in_the_platforms_files_is_found_without_torch(
    platform: Platform, image_folder: Path, name: str, content: str | None, line: str
) -> None:
    platform.lay_out({"train": image_folder})
    (platform.paths.config / name).unlink()
    if content is not None:
        platform.write_config(name, content)
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(platform.paths.base)}
    command = [sys.executable, "-c", NO_TORCH]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "False\n")
    assert line in done.stderr


def test_channels_with_different_classes(platform: Platform, image_folder: Path, tmp_path: Path) -> None:
    validation = write_classes(tmp_path / "validation", photos_per_class=1)
    (validation / "disc").rename(validation / "disk")
    platform.lay_out({"train": image_folder, "validation": validation})
    assert first_line(platform) == (
        "DataError: channels 'train' and 'validation' hold different classes: 'disc' only in 'train'; "
        "'disk' only in 'validation'; both need the same class folders"
    )


def test_pretrained_weights_that_are_not_available(
    platform: Platform, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens on this port
    platform.lay_out({"train": image_folder}, {"pretrained": "true", "model": "resnet18"})
    line = first_line(platform)
    assert line.startswith("WeightsError: pretrained weights for resnet18 are not available (")
    assert line.endswith(
        "). Add a channel 'pretrained' with a .safetensors or .pth state dict, build the image with "
        "BAKED_WEIGHTS=resnet18, or allow access to torchvision's hub. Or train from scratch: pretrained=false"
    )


def write_other_network(folder: Path) -> None:
    torch.save(models.squeezenet1_0(num_classes=3).state_dict(), folder / "squeezenet.pth")


def write_code(folder: Path) -> None:
    torch.save(models.squeezenet1_1(num_classes=3), folder / "squeezenet.pth")


def write_nothing(folder: Path) -> None:
    (folder / "README.md").write_text("nothing here")


def write_text(folder: Path) -> None:
    (folder / "weights.safetensors").write_text("no weights")


WEIGHTS = [
    (
        write_other_network,
        "the pretrained weights do not fit squeezenet1_1 (channel 'pretrained', squeezenet.pth): "
        "features.6.squeeze.weight is missing; features.6.squeeze.bias is missing; "
        "features.6.expand1x1.weight is missing, and ",
    ),
    (write_code, "squeezenet.pth can't be read safely as a state dict: Weights only load failed."),
    (
        write_nothing,
        "channel 'pretrained' should hold one state dict (.safetensors, .pth, .pt), or one whose name begins with "
        "'squeezenet1_1'; found none",
    ),
    (write_text, "weights.safetensors can't be read safely as a state dict: Error while deserializing header"),
]


@pytest.mark.parametrize(("write", "line"), WEIGHTS)
def test_pretrained_weights_that_do_not_fit(
    platform: Platform, image_folder: Path, tmp_path: Path, write: Spoil, line: str
) -> None:
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    write(pretrained)
    platform.lay_out({"train": image_folder, "pretrained": pretrained}, {"pretrained": "true"})
    assert first_line(platform).startswith(f"WeightsError: {line}")


def test_divergence_in_the_first_epoch(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder}, {"optimizer": "sgd", "lr": "10", "precision": "fp32"})
    assert first_line(platform) == (
        "ConfigError: training diverged in epoch 1, its loss is nan: lower lr (now 10) or add warmup_epochs"
    )
    page = (platform.paths.output_data / "report.html").read_text(encoding="utf-8")
    assert "<h1>The training failed</h1>" in page
    assert "training diverged in epoch 1" in page
    # The next job in this folder fails before its first epoch, and removes the page of the previous one.
    platform.lay_out({"train": image_folder}, {"model": "resnet1"})
    assert platform.run().exit_code == 1
    assert not (platform.paths.output_data / "report.html").exists()


def test_a_bug_is_reported_with_its_message_before_the_traceback(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder})
    platform.paths.model.rmdir()
    platform.paths.model.write_text("a file instead of the platform's folder")
    job = platform.run()
    assert job.exit_code == 2
    assert job.failure is not None
    first, *rest = job.failure.splitlines()
    assert first.startswith("internal error, please report it: NotADirectoryError: ")
    assert rest[1] == "Traceback (most recent call last):"

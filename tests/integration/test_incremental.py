"""Incremental training: the channel ``model`` gives the starting weights."""

import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.drawing import write_classes
from support.jobs import Job, Platform, run_shared

HEAD = ("classifier.1.weight", "classifier.1.bias")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("first")
    return run_shared(folder / "opt_ml", {"train": write_classes(folder / "train")})


def changed(job: Job, first: Job) -> set[str]:
    before = load_file(first.paths.model / "model.safetensors")
    after = load_file(job.paths.model / "model.safetensors")
    return {name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])}


# So small a learning rate that only what is drawn anew differs.
STILL = {"lr": "1e-12", "weight_decay": "0", "precision": "fp32", "seed": "7"}


def test_a_model_of_the_same_classes_is_trained_on_with_its_head(
    platform: Platform, image_folder: Path, first: Job
) -> None:
    job = platform.train({"train": image_folder, "model": first.paths.model}, **STILL)
    assert (job.exit_code, job.failure) == (0, None)
    assert "model       squeezenet1_1, trained before (channel 'model'); 0.7 M" in job.log
    before, after = (load_file(one.paths.model / "model.safetensors") for one in (first, job))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)


def test_a_model_of_other_classes_keeps_its_backbone_from_an_archive(
    platform: Platform, image_folder: Path, first: Job, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    with tarfile.open(tmp_path / "model" / "model.tar.gz", "w:gz") as archive:
        for path in first.paths.model.iterdir():
            archive.add(path, path.name)
    tarfile.open(tmp_path / "model" / "output.tar.gz", "w:gz").close()  # beside it, as on S3
    # As many classes, so that the head would fit.
    (image_folder / "disc").rename(image_folder / "wheel")
    channels = {"train": image_folder, "model": tmp_path / "model"}
    job = platform.train(channels, freeze="backbone", pretrained="true", **STILL)
    assert (job.exit_code, job.failure) == (0, None)
    assert (
        "trained before (channel 'model'), with a new head, since the classes differ: new wheel; gone disc; " in job.log
    )
    assert changed(job, first) <= set(HEAD)
    assert "classifier.1.weight" in changed(job, first)


def put_unsafe_archive(folder: Path) -> None:
    (folder / "outside").write_text("x")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.add(folder / "outside", "../outside")
    (folder / "outside").unlink()


def put_two_archives(folder: Path) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        tarfile.open(folder / name, "w:gz").close()


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (put_unsafe_archive, "ArchiveError: "),
        (put_two_archives, "should hold one model.tar.gz, or model.json and the rest; found a.tar.gz, b.tar.gz"),
        (lambda folder: (folder / "weights.pth").touch(), "model.json and the rest; found weights.pth"),
        (lambda folder: (folder / "model.json").write_text("{}"), "model.json: architecture: Field required"),
    ],
)
def test_other_contents_of_the_channel_are_errors(
    platform: Platform, image_folder: Path, tmp_path: Path, put: object, message: str
) -> None:
    (tmp_path / "model").mkdir()
    assert callable(put)
    put(tmp_path / "model")
    job = platform.train({"train": image_folder, "model": tmp_path / "model"})
    assert job.exit_code == 1
    assert job.failure is not None
    assert message in job.failure


def test_another_architecture_is_an_error_that_names_it(platform: Platform, image_folder: Path, first: Job) -> None:
    job = platform.train({"train": image_folder, "model": first.paths.model}, model="resnet18")
    assert job.failure is not None
    assert "is a squeezenet1_1, and model=resnet18: set model=squeezenet1_1" in job.failure

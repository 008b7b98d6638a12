"""Tar shards, from photos to a model."""

from pathlib import Path

from prepare_data import main as prepare
from support.drawing import write_classes
from support.jobs import Job, Platform


def outcome(job: Job) -> tuple[bytes, str, str]:
    assert job.exit_code == 0, job.log
    steps = (job.paths.output_data / "steps.csv").read_text(encoding="utf-8")
    return (job.paths.model / "model.safetensors").read_bytes(), steps, job.manifest["data_fingerprint"]


def test_shards_train_the_same_model_as_class_folders(platform: Platform, tmp_path: Path) -> None:
    source, prepared = write_classes(tmp_path / "photos"), tmp_path / "prepared"
    assert prepare([str(source), str(prepared), "--shards", "7", "--jobs", "1", "--test", "0"]) == 0
    folders, shards = (
        outcome(platform.train({name: root / name for name in ("train", "validation")}, augmentation="standard"))
        for root in (prepared, prepared / "shards")
    )
    assert shards == folders

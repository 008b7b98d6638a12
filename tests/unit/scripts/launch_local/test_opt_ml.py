"""Layout of a local ``/opt/ml``, and the safety of other files in its place."""

import json
from pathlib import Path

import pytest

from classifier.contract.config import read_training_config
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, DataError
from launch.local.opt_ml import find_checkpoints, lay_out, publish, staging_folder

FILE = {
    "ContentType": "application/x-image",
    "TrainingInputMode": "File",
    "S3DistributionType": "FullyReplicated",
    "RecordWrapperType": "None",
}


def read(base: Path, name: str) -> object:
    return json.loads((base / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "opt_ml"


def test_config_files_equal_those_of_the_platform(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder, "pretrained": image_folder, "model": image_folder}, {"epochs": "3"})
    assert read(base, "hyperparameters") == {"epochs": "3"}
    assert read(base, "inputdataconfig") == {
        "train": FILE,
        "pretrained": FILE,
        "model": {**FILE, "ContentType": "application/x-sagemaker-model"},
    }
    assert read(base, "resourceconfig") == {
        "current_host": "algo-1",
        "current_instance_type": "local",
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1"],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "local", "hosts": ["algo-1"]}
        ],
        "network_interface_name": "lo",
        "topology": None,
    }
    assert {path.name for path in (base / "input" / "config").iterdir()} == {
        "hyperparameters.json",
        "inputdataconfig.json",
        "resourceconfig.json",
    }


def test_train_reads_the_layout(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder}, {"epochs": "3"})
    config = read_training_config(Paths(base), {})
    assert (list(config.channels), config.hyperparameters.epochs, config.cluster.rank) == (["train"], 3, 0)
    photos = sorted(path.name for path in (Paths(base).channel("train") / "disc").iterdir())
    assert photos == [f"{number}.jpg" for number in range(8)]
    assert Paths(base).model.is_dir()
    assert Paths(base).output_data.is_dir()


def test_second_layout_replaces_the_first_and_keeps_the_photos(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder, "test": image_folder}, {"epochs": "3"})
    (base / "model" / "model.json").write_text("{}", encoding="utf-8")
    (base / "output" / "failure").write_text("before", encoding="utf-8")
    lay_out(base, {"train": image_folder}, {})
    assert list((base / "model").iterdir()) == []
    assert not (base / "output" / "failure").exists()
    assert read(base, "hyperparameters") == {}
    assert [path.name for path in (base / "input" / "data").iterdir()] == ["train"]
    assert len(list(image_folder.rglob("*.jpg"))) == 24


@pytest.mark.parametrize("names", [["thesis.txt"], ["photos/1.jpg"], ["model/x", "notes/y"], [".git/config"]])
def test_folder_with_other_files_is_not_cleared(base: Path, image_folder: Path, names: list[str]) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^--output .* holds .*, which would be lost: choose another folder$"):
        lay_out(base, {"train": image_folder}, {})
    assert all((base / name).read_text(encoding="utf-8") == "precious" for name in names)


def test_project_with_folders_of_the_same_names_is_not_cleared(base: Path, image_folder: Path) -> None:
    (base / "model").mkdir(parents=True)
    (base / "model" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match="which would be lost"):
        lay_out(base, {"train": image_folder}, {})
    assert (base / "model" / "thesis.txt").is_file()


def test_file_in_place_of_the_folder_is_not_removed(base: Path, image_folder: Path) -> None:
    base.write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match="which would be lost"):
        lay_out(base, {"train": image_folder}, {})
    assert base.read_text(encoding="utf-8") == "precious"


def test_empty_folder_is_used(base: Path, image_folder: Path) -> None:
    base.mkdir()
    lay_out(base, {"train": image_folder}, {})
    assert read(base, "hyperparameters") == {}


@pytest.mark.parametrize("place", ["model", "output/data", "."])
def test_channel_inside_the_cleared_folder_is_rejected(base: Path, image_folder: Path, place: str) -> None:
    lay_out(base, {"train": image_folder}, {})
    (base / "model" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"^channel 'pretrained': .* is inside --output .*, which is cleared: "):
        lay_out(base, {"train": image_folder, "pretrained": base / place}, {})
    assert (base / "model" / "model.safetensors").is_file()


def test_missing_channel_is_reported_before_anything_is_cleared(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder}, {"epochs": "3"})
    with pytest.raises(DataError, match=r"^channel 'test': there is no folder "):
        lay_out(base, {"train": image_folder, "test": base / "none"}, {})
    assert read(base, "hyperparameters") == {"epochs": "3"}


def test_a_staged_training_replaces_the_last_one_only_with_a_model(base: Path, image_folder: Path) -> None:
    for folder, epochs in ((base, "1"), (staging_folder(base), "2")):
        lay_out(folder, {"train": image_folder}, {"epochs": epochs})
    assert not publish(base)
    assert read(base, "hyperparameters") == {"epochs": "1"}
    (staging_folder(base) / "model" / "model.json").write_text("{}", encoding="utf-8")
    assert publish(base)
    assert read(base, "hyperparameters") == {"epochs": "2"}
    assert [path.name for path in base.parent.glob("opt_ml*")] == ["opt_ml"]


def test_a_first_training_needs_no_earlier_one(base: Path, image_folder: Path) -> None:
    lay_out(staging_folder(base), {"train": image_folder}, {})
    (staging_folder(base) / "model" / "model.json").write_text("{}", encoding="utf-8")
    assert publish(base)
    assert len(list((base / "input" / "data" / "train").rglob("*.jpg"))) == 24


def write_checkpoint(base: Path, name: str = "checkpoint-0002-00000000.safetensors") -> Path:
    path = base / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(base), encoding="utf-8")
    return path


def test_checkpoints_of_an_unfinished_training_are_kept_and_all_else_is_cleared(base: Path, image_folder: Path) -> None:
    staged = staging_folder(base)
    for folder in (base, staged):
        lay_out(folder, {"train": image_folder}, {"epochs": "3"})
        write_checkpoint(folder)
    (staged / "model" / "model.json").write_text("{}")
    lay_out(staged, {"train": image_folder}, {"epochs": "4"}, checkpoints=find_checkpoints(base))
    assert write_checkpoint(staged).read_text(encoding="utf-8") == str(staged)
    assert not (staged / "model" / "model.json").exists()
    assert read(staged, "hyperparameters") == {"epochs": "4"}
    lay_out(staged, {"train": image_folder}, {"epochs": "4"})
    assert not (staged / "checkpoints").exists()
    assert any(image_folder.glob("*/*")), "channels are links, whose targets stay"


def test_a_finished_training_lends_its_checkpoints(base: Path, image_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are no checkpoints in .*: train without --resume first"):
        find_checkpoints(base)
    lay_out(base, {"train": image_folder}, {"epochs": "3"})
    original = write_checkpoint(base)
    lay_out(staging_folder(base), {"train": image_folder}, {"epochs": "4"}, checkpoints=find_checkpoints(base))
    lent = staging_folder(base) / "checkpoints" / original.name
    assert lent.read_text(encoding="utf-8") == str(base)
    lent.unlink()
    assert original.exists()

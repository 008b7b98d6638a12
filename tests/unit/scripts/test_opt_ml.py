"""A folder laid out as the platform does, and nobody's files lost for it."""

import json
from pathlib import Path

import pytest

from classifier.contract.config import read_training_config
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, DataError
from launch.local.opt_ml import find_channels, lay_out
from support.drawing import write_classes

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


def test_the_config_files_are_those_of_the_platform(base: Path, image_folder: Path) -> None:
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


def test_train_reads_what_was_laid_out(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder}, {"epochs": "3"})
    config = read_training_config(Paths(base), {})
    assert (list(config.channels), config.hyperparameters.epochs, config.cluster.rank) == (["train"], 3, 0)
    photos = sorted(path.name for path in (Paths(base).channel("train") / "disc").iterdir())
    assert photos == [f"{number}.jpg" for number in range(8)]
    assert Paths(base).model.is_dir()
    assert Paths(base).output_data.is_dir()


def test_a_second_run_starts_afresh_and_the_photos_stay(base: Path, image_folder: Path) -> None:
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
def test_a_folder_that_holds_something_else_is_not_cleared(base: Path, image_folder: Path, names: list[str]) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("dear", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^--output .* holds .*, which would be lost: name another folder$"):
        lay_out(base, {"train": image_folder}, {})
    assert all((base / name).read_text(encoding="utf-8") == "dear" for name in names)


def test_a_project_with_folders_of_the_same_names_is_not_cleared(base: Path, image_folder: Path) -> None:
    (base / "model").mkdir(parents=True)
    (base / "model" / "thesis.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(ConfigError, match="which would be lost"):
        lay_out(base, {"train": image_folder}, {})
    assert (base / "model" / "thesis.txt").is_file()


def test_a_file_in_the_place_of_the_folder_is_not_removed(base: Path, image_folder: Path) -> None:
    base.write_text("dear", encoding="utf-8")
    with pytest.raises(ConfigError, match="which would be lost"):
        lay_out(base, {"train": image_folder}, {})
    assert base.read_text(encoding="utf-8") == "dear"


def test_an_empty_folder_is_used(base: Path, image_folder: Path) -> None:
    base.mkdir()
    lay_out(base, {"train": image_folder}, {})
    assert read(base, "hyperparameters") == {}


@pytest.mark.parametrize("place", ["model", "output/data", "."])
def test_a_channel_within_what_is_cleared_is_refused(base: Path, image_folder: Path, place: str) -> None:
    lay_out(base, {"train": image_folder}, {})
    (base / "model" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"^channel 'pretrained': .* lies in --output .*, which is made afresh: "):
        lay_out(base, {"train": image_folder, "pretrained": base / place}, {})
    assert (base / "model" / "model.safetensors").is_file()


def test_a_missing_channel_is_told_before_anything_is_cleared(base: Path, image_folder: Path) -> None:
    lay_out(base, {"train": image_folder}, {"epochs": "3"})
    with pytest.raises(DataError, match=r"^channel 'test': there is no folder "):
        lay_out(base, {"train": image_folder, "test": base / "none"}, {})
    assert read(base, "hyperparameters") == {"epochs": "3"}


def test_class_folders_alone_are_the_channel_train(image_folder: Path) -> None:
    assert find_channels(image_folder) == {"train": image_folder}


@pytest.mark.parametrize("others", [(), ("test",), ("validation", "test")])
def test_folders_named_as_channels_are_channels(tmp_path: Path, others: tuple[str, ...]) -> None:
    for name in ("train", *others):
        write_classes(tmp_path / name, photos_per_class=1)
    assert find_channels(tmp_path) == {name: tmp_path / name for name in ("train", *others)}


def test_a_class_may_be_called_train(tmp_path: Path, image_folder: Path) -> None:
    vehicles = tmp_path / "vehicles"
    vehicles.mkdir()
    (image_folder / "disc").rename(vehicles / "train")
    (image_folder / "cross").rename(vehicles / "ship")
    assert find_channels(vehicles) == {"train": vehicles}


def test_missing_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^--data {tmp_path / 'none'}: there is no such folder$"):
        find_channels(tmp_path / "none")


def test_channels_without_train_are_a_mistake(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", photos_per_class=1)
    with pytest.raises(DataError, match="holds test but no train: add train/, or name one of them"):
        find_channels(tmp_path)

"""Resolution of the tuning options: fixed hyperparameters, defaults, names and folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from classifier.errors import ConfigError
from launch.platform.clients import PlatformOptions
from launch.training.options import TrainingOptions
from launch.training.request import Resources
from launch.tuning.options import RESULTS, TuningOptions, resolve_search, results_folder, trial_training, watched_folder

LR = {"ContinuousParameterRanges": [{"Name": "learning-rate", "MinValue": "0.001", "MaxValue": "0.1"}]}


def tuning_options(folder: Path, *, output: str | None = None, local: bool = True, **values: Any) -> TuningOptions:
    path = folder / "dog_breeds" / "ranges.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(LR), encoding="utf-8")
    training = TrainingOptions(
        platform=PlatformOptions(local=local),
        data=str(folder / "train"),
        output=output,
        # With spot capacity a training has checkpoints by default.
        resources=Resources(spot=True),
    )
    return TuningOptions(ranges=path, training=training, **values)


def test_defaults_apply_to_hyperparameters_that_are_neither_fixed_nor_tuned(tmp_path: Path) -> None:
    fixed: Mapping[str, str] = {"batch-size": "8"}
    defaults: Mapping[str, str] = {"epochs": "3", "batch_size": "64", "lr": "0.5"}
    options = tuning_options(tmp_path, hyperparameters=fixed, defaults=defaults)
    assert resolve_search(options).fixed == {"batch-size": "8", "epochs": "3"}
    assert (fixed, defaults) == ({"batch-size": "8"}, {"epochs": "3", "batch_size": "64", "lr": "0.5"})


def test_fixed_hyperparameters_are_validated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epochs='0'"):
        resolve_search(tuning_options(tmp_path, hyperparameters={"epochs": "0"}))


def test_default_name_is_the_ranges_folder_and_on_aws_has_the_time(tmp_path: Path) -> None:
    assert resolve_search(tuning_options(tmp_path)).spec.name == "dog-breeds"
    name = resolve_search(tuning_options(tmp_path, local=False)).spec.name
    assert name.startswith("dog-breeds-")
    assert len(name) <= 32


def test_results_of_a_local_job_are_in_its_output(tmp_path: Path) -> None:
    assert results_folder(tuning_options(tmp_path), "dogs") == RESULTS / "dogs"
    assert results_folder(tuning_options(tmp_path, output="out"), "dogs") == Path("out")
    assert results_folder(tuning_options(tmp_path, output="out", results=tmp_path), "dogs") == tmp_path
    assert results_folder(tuning_options(tmp_path, output="s3://b/out", local=False), "dogs") == RESULTS / "dogs"
    with pytest.raises(ConfigError, match="--output s3://b/out: with --local it has to be a folder"):
        results_folder(tuning_options(tmp_path, output="s3://b/out"), "dogs")


def test_results_of_a_job_that_is_watched_are_where_its_command_puts_them(tmp_path: Path) -> None:
    assert watched_folder("dogs", (tmp_path / "out" / "artifacts").as_uri(), local=True) == tmp_path / "out"
    assert watched_folder("dogs", (tmp_path / "models").as_uri(), local=True) == RESULTS / "dogs"
    assert watched_folder("dogs", "s3://b/artifacts", local=False) == RESULTS / "dogs"


def test_trials_share_no_checkpoints(tmp_path: Path, image_folder: Path) -> None:
    options = tuning_options(tmp_path, hyperparameters={"epochs": "3"})
    search = resolve_search(options)
    training = trial_training(options.training, search, tmp_path / "results")
    assert training.checkpoints is None
    assert training.channels == {"train": image_folder.as_uri()}
    assert training.output == (tmp_path / "results" / "artifacts").as_uri()
    assert training.hyperparameters == {"epochs": "3"}

"""Tuning requests, validated by botocore's model of the service."""

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast

import botocore.session
import pytest
from botocore.validate import ParamValidator

from classifier.contract.metrics import METRICS
from classifier.errors import ConfigError
from launch.platform.resources import Security
from launch.training.request import Resources, TrainingSpec, training_definition
from launch.tuning.local import cores_per_host, trial_request
from launch.tuning.ranges import Ranges, read_ranges
from launch.tuning.request import STRATEGIES, TuningSpec, fixed_hyperparameters, read_spec, tuning_request

TRAINING = TrainingSpec(
    job_name="trial",
    image="1.dkr.ecr.eu-west-1.amazonaws.com/image-classifier:1",
    role="arn:aws:iam::000000000000:role/sagemaker",
    channels={"train": "s3://bucket/train/"},
    output="s3://bucket/out",
    hyperparameters={"model": "resnet18", "epochs": "9"},
)
LR = {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
LR_VALUES = {"Name": "lr", "Values": ["0.1", "0.01", "0.001"]}


@pytest.fixture
def ranges(tmp_path: Path) -> Ranges:
    return write_ranges(tmp_path, {"ContinuousParameterRanges": [LR]})


def write_ranges(folder: Path, content: object) -> Ranges:
    path = folder / "ranges.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_ranges(path, {})


@cache
def input_shape() -> Any:
    model = cast(Any, botocore.session.get_session().get_service_model("sagemaker"))
    return model.operation_model("CreateHyperParameterTuningJob").input_shape


def check(request: dict[str, Any]) -> None:
    shape = input_shape()
    errors = ParamValidator().validate(request, shape)
    assert not errors.has_errors(), errors.generate_report()
    config = request["HyperParameterTuningJobConfig"]
    assert config["Strategy"] in shape.members["HyperParameterTuningJobConfig"].members["Strategy"].enum


@pytest.mark.parametrize(
    ("strategy", "objective"),
    # Hyperband needs an objective that is measured more than once.
    [pair for pair in product(STRATEGIES, METRICS) if not (pair[0] == "hyperband" and pair[1].startswith("test:"))],
)
def test_request_is_valid_for_the_api(tmp_path: Path, strategy: str, objective: str) -> None:
    grid = strategy == "grid"
    content = {"CategoricalParameterRanges": [LR_VALUES]} if grid else {"ContinuousParameterRanges": [LR]}
    spec = TuningSpec(
        name="dogs",
        ranges=write_ranges(tmp_path, content),
        strategy=strategy,
        objective=objective,
        jobs=None if grid else 20,
        early_stopping=strategy in ("bayesian", "random") and not objective.startswith("test:"),
        warm_start=("dogs-1", "dogs-2"),
        target=0.9,
        max_runtime_s=3600,
        no_improvement=5,
        seed=3,
    )
    shared = replace(
        TRAINING, resources=Resources(spot=True), security=Security(kms_key="key"), tags={"team": "vision"}
    )
    request = tuning_request(spec, shared)
    check(request)
    assert read_spec(request) == spec


def test_request_has_the_specified_values(ranges: Ranges) -> None:
    spec = TuningSpec(name="dogs", ranges=ranges, objective="validation:loss", jobs=12, parallel=3, early_stopping=True)
    request = tuning_request(spec, TRAINING)
    assert request["HyperParameterTuningJobName"] == "dogs"
    assert request["HyperParameterTuningJobConfig"] == {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 12, "MaxParallelTrainingJobs": 3},
        "ParameterRanges": {"ContinuousParameterRanges": [LR]},
        "TrainingJobEarlyStoppingType": "Auto",
    }
    definition = request["TrainingJobDefinition"]
    assert definition["StaticHyperParameters"] == {"model": "resnet18", "epochs": "9"}
    assert "validation:loss" in [one["Name"] for one in definition["AlgorithmSpecification"]["MetricDefinitions"]]
    assert {"Key": "project", "Value": "image-classifier"} in request["Tags"]


def test_hyperband_gets_the_largest_number_of_epochs(ranges: Ranges, tmp_path: Path) -> None:
    def resources(ranges: Ranges) -> dict[str, int]:
        config = tuning_request(TuningSpec(name="dogs", ranges=ranges, strategy="hyperband"), TRAINING)
        return config["HyperParameterTuningJobConfig"]["StrategyConfig"]["HyperbandStrategyConfig"]

    assert resources(ranges) == {"MinResource": 1, "MaxResource": 9}
    epochs = {"Name": "epochs", "MinValue": "2", "MaxValue": "30"}
    assert resources(write_ranges(tmp_path, {"IntegerParameterRanges": [epochs]}))["MaxResource"] == 30
    values = {"Name": "epochs", "Values": ["5", "10", "20"]}
    assert resources(write_ranges(tmp_path, {"CategoricalParameterRanges": [values]}))["MaxResource"] == 20


def test_grid_has_one_job_per_combination(tmp_path: Path) -> None:
    ranges = write_ranges(tmp_path, {"CategoricalParameterRanges": [LR_VALUES]})
    spec = TuningSpec(name="dogs", ranges=ranges, strategy="grid", jobs=None)
    limits = tuning_request(spec, TRAINING)["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits["MaxNumberOfTrainingJobs"] == 3


@pytest.mark.parametrize(("transfer", "kind"), [(False, "IdenticalDataAndAlgorithm"), (True, "TransferLearning")])
def test_warm_start_names_the_earlier_jobs(ranges: Ranges, transfer: bool, kind: str) -> None:
    spec = TuningSpec(name="dogs", ranges=ranges, warm_start=("first",), transfer=transfer)
    assert tuning_request(spec, TRAINING)["WarmStartConfig"] == {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "first"}],
        "WarmStartType": kind,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "validation:acuracy"}, r"unknown metric \(did you mean 'validation:accuracy'\?\); known are"),
        ({"name": "a" * 33}, "up to 32 letters, digits and hyphens"),
        ({"name": "my_job"}, "--name my_job: up to 32 letters"),
        ({"jobs": 0}, "--jobs and --parallel are at least 1"),
        ({"parallel": 0}, "--jobs and --parallel are at least 1"),
        ({"max_runtime_s": 60}, "--max-runtime 60: at least 120 seconds"),
        ({"no_improvement": 2}, "--no-improvement 2: at least 3 trials"),
        ({"warm_start": tuple("abcdef")}, "--warm-start takes at most 5 earlier tuning jobs, not 6"),
        ({"strategy": "hyperband", "early_stopping": True}, "hyperband already stops trials early"),
        ({"strategy": "hyperband", "objective": "test:loss"}, "--strategy hyperband needs an objective of each epoch"),
        ({"early_stopping": True, "objective": "test:f1"}, "--early-stopping needs an objective of each epoch"),
        ({"strategy": "grid"}, "lr is a range: list its values under CategoricalParameterRanges"),
    ],
)
def test_settings_that_the_platform_rejects_are_errors(ranges: Ranges, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tuning_request(TuningSpec(**{"name": "dogs", "ranges": ranges, **settings}), TRAINING)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "a" * 32},
        {"jobs": 1, "parallel": 1},
        {"max_runtime_s": 120},
        {"no_improvement": 3},
        {"warm_start": tuple("abcde")},
    ],
)
def test_limits_of_the_platform_are_inclusive(ranges: Ranges, settings: dict[str, Any]) -> None:
    check(tuning_request(TuningSpec(**{"name": "dogs", "ranges": ranges, **settings}), TRAINING))


def test_grid_rejects_another_number_of_jobs(tmp_path: Path) -> None:
    ranges = write_ranges(tmp_path, {"CategoricalParameterRanges": [LR_VALUES]})
    with pytest.raises(ConfigError, match="grid tries all 3 combinations: leave --jobs 20 out"):
        tuning_request(TuningSpec(name="dogs", ranges=ranges, strategy="grid", jobs=20), TRAINING)


def test_local_trial_gets_its_share_of_the_cores(ranges: Ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    request = trial_request(
        TuningSpec(name="dogs", ranges=ranges, parallel=3), training_definition(TRAINING), "dogs-1", {"lr": "0.01"}
    )
    assert request["Environment"] == {"OMP_NUM_THREADS": "2"}
    assert request["HyperParameters"] == {
        "model": "resnet18",
        "epochs": "9",
        "lr": "0.01",
        "num_workers": "2",
        "optimize_for_cpu": "false",
        "_tuning_objective_metric": "validation:accuracy",
    }


def test_hosts_of_a_local_trial_share_its_cores(ranges: Ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    definition = training_definition(replace(TRAINING, resources=Resources(num_instances=2)))
    request = trial_request(TuningSpec(name="dogs", ranges=ranges, parallel=2), definition, "dogs-1", {})
    assert request["Environment"] == {"OMP_NUM_THREADS": "2"}
    assert request["HyperParameters"]["num_workers"] == "2"


def test_more_trials_than_cores_get_one_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert [cores_per_host(parallel) for parallel in (1, 2, 3)] == [2, 1, 1]


def test_given_hyperparameters_override_a_trials_defaults(ranges: Ranges) -> None:
    asked = replace(TRAINING, hyperparameters={"num-workers": "4"}, environment={"OMP_NUM_THREADS": "7"})
    request = trial_request(TuningSpec(name="dogs", ranges=ranges), training_definition(asked), "dogs-1", {})
    assert request["Environment"] == {"OMP_NUM_THREADS": "7"}
    assert request["HyperParameters"]["num-workers"] == "4"
    assert "num_workers" not in request["HyperParameters"]


def test_fixed_hyperparameters_are_not_the_platforms(ranges: Ranges) -> None:
    request = tuning_request(TuningSpec(name="dogs", ranges=ranges), TRAINING)
    # As AWS describes the job.
    request["TrainingJobDefinition"]["StaticHyperParameters"]["_tuning_objective_metric"] = "validation:accuracy"
    assert fixed_hyperparameters(request) == {"model": "resnet18", "epochs": "9"}
    assert read_spec(request).ranges == ranges

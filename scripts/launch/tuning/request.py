"""The ``CreateHyperParameterTuningJob`` request of a tuning job."""

import copy
from collections.abc import Mapping
from typing import Any

from launch.platform.resources import tag_list
from launch.training.request import TrainingSpec, training_definition
from launch.tuning.spec import TuningSpec, check, max_epochs


def tuning_request(spec: TuningSpec, training: TrainingSpec) -> dict[str, Any]:
    """Build the request.

    Args:
        training: what the trials have in common, with the fixed hyperparameters.

    Raises:
        ConfigError: the specification is not valid.
    """
    check(spec)
    request: dict[str, Any] = {
        "HyperParameterTuningJobName": spec.name,
        "HyperParameterTuningJobConfig": _config(spec, training.hyperparameters),
        "TrainingJobDefinition": training_definition(training),
        "Tags": tag_list(training.tags),
    }
    if spec.warm_start:
        request["WarmStartConfig"] = {
            "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name} for name in spec.warm_start],
            "WarmStartType": "TransferLearning" if spec.transfer else "IdenticalDataAndAlgorithm",
        }
    return request


def _config(spec: TuningSpec, fixed: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Strategy": spec.strategy.capitalize(),
        "HyperParameterTuningJobObjective": {"Type": spec.metric.direction, "MetricName": spec.objective},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": spec.num_jobs(), "MaxParallelTrainingJobs": spec.parallel},
        "ParameterRanges": copy.deepcopy(dict(spec.ranges.request)),
        "TrainingJobEarlyStoppingType": "Auto" if spec.early_stopping else "Off",
    }
    if spec.strategy == "hyperband":
        resources = {"MinResource": 1, "MaxResource": max_epochs(spec.ranges, fixed)}
        config["StrategyConfig"] = {"HyperbandStrategyConfig": resources}
    if spec.max_runtime_s is not None:
        config["ResourceLimits"]["MaxRuntimeInSeconds"] = spec.max_runtime_s
    criteria = _completion_criteria(spec)
    if criteria:
        config["TuningJobCompletionCriteria"] = criteria
    if spec.seed is not None:
        config["RandomSeed"] = spec.seed
    return config


def _completion_criteria(spec: TuningSpec) -> dict[str, Any]:
    criteria: dict[str, Any] = {}
    if spec.target is not None:
        criteria["TargetObjectiveMetricValue"] = spec.target
    if spec.no_improvement is not None:
        criteria["BestObjectiveNotImproving"] = {"MaxNumberOfTrainingJobsNotImproving": spec.no_improvement}
    return criteria

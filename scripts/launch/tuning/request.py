"""Specification of a tuning job, its validation, and the ``CreateHyperParameterTuningJob`` request."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS, Metric
from classifier.errors import ConfigError, did_you_mean
from launch.platform.resources import tag_list
from launch.training.request import TrainingSpec, training_definition
from launch.tuning.ranges import Choice, NumberRange, Ranges, canonical, parse_ranges

STRATEGIES = ("bayesian", "random", "grid", "hyperband")
MAX_NAME = 32  # characters of a tuning job's name

_NAME = re.compile(rf"[a-zA-Z0-9](-*[a-zA-Z0-9]){{0,{MAX_NAME - 1}}}")
_MAX_PARENTS = 5
_MIN_RUNTIME_S = 120
_MIN_NOT_IMPROVING = 3


@dataclass(frozen=True, kw_only=True)
class TuningSpec:
    """A tuning job: what is searched, how, and until when.

    Attributes:
        objective: name of the metric that trials are compared by.
        jobs: number of trials; None stands for 20, or for all combinations of a grid.
        parallel: number of trials at a time.
        early_stopping: whether trials that fall behind the others are stopped.
        warm_start: names of earlier tuning jobs.
        transfer: whether the earlier jobs had other data or another image.
        target: end when the objective reaches this value.
        max_runtime_s: end after this time.
        no_improvement: end when so many trials in a row bring no better objective.
    """

    name: str
    ranges: Ranges
    objective: str = "validation:accuracy"
    strategy: str = "bayesian"
    jobs: int | None = 20
    parallel: int = 2
    early_stopping: bool = False
    warm_start: tuple[str, ...] = ()
    transfer: bool = False
    target: float | None = None
    max_runtime_s: int | None = None
    no_improvement: int | None = None
    seed: int | None = None

    @property
    def metric(self) -> Metric:
        return METRICS[self.objective]

    def num_jobs(self) -> int:
        """Return the number of trials; a grid has one for each combination."""
        return len(self.ranges.grid()) if self.strategy == "grid" else self.jobs or 20


def check(spec: TuningSpec) -> None:
    """Validate a specification by the platform's rules, which apply to local jobs, too.

    Raises:
        ConfigError: some settings contradict each other, or are outside of the API's bounds.
    """
    if spec.objective not in METRICS:
        hint = did_you_mean(spec.objective, METRICS)
        raise ConfigError(f"--objective {spec.objective}: unknown metric{hint}; known are {', '.join(METRICS)}")
    if not _NAME.fullmatch(spec.name):
        raise ConfigError(f"--name {spec.name}: up to {MAX_NAME} letters, digits and hyphens, a letter or digit first")
    if spec.parallel < 1 or (spec.jobs is not None and spec.jobs < 1):
        raise ConfigError("--jobs and --parallel are at least 1")
    if spec.max_runtime_s is not None and spec.max_runtime_s < _MIN_RUNTIME_S:
        raise ConfigError(f"--max-runtime {spec.max_runtime_s}: at least {_MIN_RUNTIME_S} seconds")
    if spec.no_improvement is not None and spec.no_improvement < _MIN_NOT_IMPROVING:
        raise ConfigError(f"--no-improvement {spec.no_improvement}: at least {_MIN_NOT_IMPROVING} trials")
    if len(spec.warm_start) > _MAX_PARENTS:
        raise ConfigError(f"--warm-start takes at most {_MAX_PARENTS} earlier tuning jobs, not {len(spec.warm_start)}")
    _check_strategy(spec)


def _check_strategy(spec: TuningSpec) -> None:
    stops_early = spec.early_stopping or spec.strategy == "hyperband"
    if stops_early and not spec.objective.startswith(("validation:", "train:")):
        what = "--strategy hyperband" if spec.strategy == "hyperband" else "--early-stopping"
        raise ConfigError(f"{what} needs an objective of each epoch, and {spec.objective} is measured once, at the end")
    if spec.strategy == "hyperband" and spec.early_stopping:
        raise ConfigError("--strategy hyperband already stops trials early: leave --early-stopping out")
    if spec.strategy == "grid":
        num_points = len(spec.ranges.grid())
        if spec.jobs is not None and spec.jobs != num_points:
            raise ConfigError(f"--strategy grid tries all {num_points} combinations: leave --jobs {spec.jobs} out")


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


def read_spec(job: Mapping[str, Any]) -> TuningSpec:
    """Return the specification of a ``CreateHyperParameterTuningJob`` request, or of a tuning job's description.

    Raises:
        ConfigError: these commands can't run or show such a job.
    """
    name, config = job["HyperParameterTuningJobName"], job["HyperParameterTuningJobConfig"]
    limits, criteria = config["ResourceLimits"], config.get("TuningJobCompletionCriteria", {})
    warm_start = job.get("WarmStartConfig", {})
    strategy = config["Strategy"].lower()
    unimproved = criteria.get("BestObjectiveNotImproving", {})
    spec = TuningSpec(
        name=name,
        ranges=parse_ranges(config.get("ParameterRanges", {}), f"tuning job {name}", fixed_hyperparameters(job)),
        objective=config.get("HyperParameterTuningJobObjective", {}).get("MetricName", ""),
        strategy=strategy,
        jobs=None if strategy == "grid" else limits.get("MaxNumberOfTrainingJobs"),
        parallel=limits["MaxParallelTrainingJobs"],
        early_stopping=config.get("TrainingJobEarlyStoppingType") == "Auto",
        warm_start=tuple(
            one["HyperParameterTuningJobName"] for one in warm_start.get("ParentHyperParameterTuningJobs", ())
        ),
        transfer=warm_start.get("WarmStartType") == "TransferLearning",
        target=criteria.get("TargetObjectiveMetricValue"),
        max_runtime_s=limits.get("MaxRuntimeInSeconds"),
        no_improvement=unimproved.get("MaxNumberOfTrainingJobsNotImproving"),
        seed=config.get("RandomSeed"),
    )
    check(spec)
    return spec


def fixed_hyperparameters(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the hyperparameters that all trials of a tuning job share, without those of the platform."""
    given = job.get("TrainingJobDefinition", {}).get("StaticHyperParameters", {})
    return {name: value for name, value in given.items() if not name.startswith("_")}


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


def max_epochs(ranges: Ranges, fixed: Mapping[str, str]) -> int:
    """Return the largest number of epochs that a trial can have."""
    for parameter in ranges.parameters:
        if canonical(parameter.name) == "epochs":
            if isinstance(parameter, NumberRange):
                return int(parameter.high)
            if isinstance(parameter, Choice):
                return max(map(int, parameter.values))
    return Hyperparameters.parse(fixed).epochs

"""Tuning options of the command line, resolved into the specifications of the tuning job and its trainings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from aws.request_check import check as check_requests
from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from launch.local.storage import local_path
from launch.training.options import TrainingOptions, training_spec
from launch.training.request import TrainingSpec
from launch.tuning.ranges import canonical, read_ranges
from launch.tuning.request import TuningSpec, check, tuning_request

RESULTS = Path(__file__).resolve().parents[3] / "local_test" / "tuning"
_PARALLEL = 2  # trials at a time
_ARTIFACTS = "artifacts"  # folder in that of the results of a local job
_MAX_NAME = 18  # characters, which leaves room for the time and the trial's number


@dataclass(frozen=True, kw_only=True)
class TuningOptions:
    """A tuning job as requested on the command line; the search settings are those of :class:`TuningSpec`.

    Attributes:
        ranges: a JSON file of the API's ``ParameterRanges``.
        training: what the trials have in common.
        hyperparameters: the fixed ones.
        defaults: hyperparameters for those that are neither fixed nor tuned.
        name: of the tuning job; default: after the ranges file, on AWS with the time.
        parallel: number of trials at a time; default: 2, or fewer if there are fewer trials.
        results: the folder of the table and the page; default: below ``local_test/tuning``.
    """

    ranges: Path
    training: TrainingOptions
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    results: Path | None = None
    objective: str = "validation:accuracy"
    strategy: str = "bayesian"
    jobs: int | None = None
    parallel: int | None = None
    early_stopping: bool = False
    warm_start: tuple[str, ...] = ()
    transfer: bool = False
    target: float | None = None
    max_runtime_s: int | None = None
    no_improvement: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Search:
    """What a tuning job varies, and the hyperparameters that stay fixed."""

    spec: TuningSpec
    fixed: Mapping[str, str]


def resolve_search(options: TuningOptions) -> Search:
    """Read the ranges file and validate the search settings.

    Raises:
        ConfigError: the ranges, the fixed hyperparameters or the settings are not valid.
    """
    Hyperparameters.parse(options.hyperparameters)
    ranges = read_ranges(options.ranges, options.hyperparameters)
    given = {canonical(name) for name in (*options.hyperparameters, *ranges.names)}
    defaults = {name: value for name, value in options.defaults.items() if name not in given}
    spec = TuningSpec(
        name=options.name or _default_name(options.ranges, local=options.training.platform.local),
        ranges=ranges,
        objective=options.objective,
        strategy=options.strategy,
        jobs=options.jobs,
        parallel=_PARALLEL if options.parallel is None else options.parallel,
        early_stopping=options.early_stopping,
        warm_start=options.warm_start,
        transfer=options.transfer,
        target=options.target,
        max_runtime_s=options.max_runtime_s,
        no_improvement=options.no_improvement,
        seed=options.seed,
    )
    check(spec)
    if options.parallel is None:
        spec = replace(spec, parallel=min(spec.parallel, spec.num_jobs()))
    return Search(spec, {**options.hyperparameters, **defaults})


def check_tuning(options: TrainingOptions, search: Search, folder: Path) -> None:
    """Check the request of a tuning job, before anything is sent; arguments as for :func:`trial_training`.

    Raises:
        UserError: as :func:`trial_training`, except for what only AWS knows; or AWS would refuse the request.
    """
    training = trial_training(replace(options, platform=options.platform.assuming()), search, folder)
    request = tuning_request(search.spec, training)
    check_requests({"CreateHyperParameterTuningJob": request}, local=options.platform.local)


def results_folder(options: TuningOptions, name: str) -> Path:
    """Return the folder of the results; a local job has its artifacts there, too.

    Args:
        name: of the tuning job.

    Raises:
        ConfigError: ``--output`` of a local job is not a folder.
    """
    output, local = options.training.output, options.training.platform.local
    if local and (output or "").startswith("s3://"):
        raise ConfigError(f"--output {output}: with --local it has to be a folder")
    return options.results or (Path(output) if local and output else RESULTS / name)


def watched_folder(name: str, output: str | None, *, local: bool) -> Path:
    """Return the folder of the results of a job that exists.

    Args:
        name: of the tuning job.
        output: its ``S3OutputPath``.
        local: whether it runs on this machine.
    """
    if local and output and Path(output).name == _ARTIFACTS:
        return local_path(output, "output").parent
    return RESULTS / name


def trial_training(options: TrainingOptions, search: Search, folder: Path) -> TrainingSpec:
    """Resolve what the trials have in common.

    Args:
        folder: gets the artifacts of local trials.

    Raises:
        UserError: an image, a role, a channel or an output is missing, or the objective needs a missing channel.
    """
    output = str(folder / _ARTIFACTS) if options.platform.local else options.output
    training = training_spec(replace(options, name="trial", output=output), search.fixed)
    objective = search.spec.objective
    if objective.startswith("test:") and "test" not in training.channels:
        raise ConfigError(f"--objective {objective} needs a channel 'test', and there is none: add one")
    # With checkpoints in a common place, the trials would resume from each other's.
    return replace(training, checkpoints=None)


def _default_name(ranges: Path, *, local: bool) -> str:
    """Name a job after the ranges file or, if that is called ranges, its folder; on AWS with the time, to be unique."""
    file = ranges.resolve()
    words = re.findall("[a-zA-Z0-9]+", file.parent.name if file.stem == "ranges" else file.stem)
    name = "-".join(words)[:_MAX_NAME].rstrip("-") or "tuning"
    return name if local else f"{name}-{datetime.now(UTC):%y%m%d-%H%M%S}"

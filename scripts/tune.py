"""Tune hyperparameters: run many trainings and find the best. RANGES is a JSON file of the API's ParameterRanges.

The results are trials.csv, tuning.html and best_hyperparameters.json, which train.py and train_local.sh accept as
--hyperparameters. Ctrl-C stops following; the job keeps running, and the command that stops it is printed. With --local
the trials run on this machine; after the job was stopped or killed, the same command resumes it.

Examples:
  .venv/bin/python scripts/tune.py scripts/examples/digits/ranges.json --local --jobs 10 epochs=4
  .venv/bin/python scripts/tune.py ranges.json --local --data prepared --early-stopping model=resnet18 epochs=5
  .venv/bin/python scripts/tune.py ranges.json --data s3://my-bucket/dogs --output s3://my-bucket/tuned \\
      --image IMAGE_URI --role ROLE --strategy hyperband --jobs 20 --parallel 4 epochs=20
  .venv/bin/python scripts/tune.py --stop JOB
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from classifier.contract.metrics import METRICS
from classifier.errors import ConfigError
from dataset.sample_data import write_digits
from launch.cli import (
    add_common,
    add_resource,
    add_training_resources,
    check_needs,
    create_parser,
    platform_options,
    run_command,
    training_options,
)
from launch.platform.clients import PlatformOptions
from launch.platform.prices import print_cost
from launch.terminal import as_json, print_status, read_hyperparameters
from launch.training.options import check_training_places, print_unchecked_places
from launch.tuning.options import (
    TuningOptions,
    check_tuning,
    resolve_search,
    results_folder,
    trial_training,
    watched_folder,
)
from launch.tuning.request import STRATEGIES, tuning_request
from launch.tuning.watch import TuningWatch, describe_cost, find_job, stop

LOCAL_TEST = Path(__file__).resolve().parent.parent / "local_test"
SAMPLE_DATA = LOCAL_TEST / "sample_data"
SAMPLE_HYPERPARAMETERS = LOCAL_TEST / "sample_hyperparameters.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("tune", partial(_tune, _parse(arguments)))


def _tune(arguments: argparse.Namespace) -> int:
    check_needs(arguments, transfer="warm_start")
    platform = platform_options(arguments)
    if arguments.stop:
        stop(platform.connect(), arguments.stop)
        return 0
    if arguments.watch:
        return _watch(arguments, platform)
    if arguments.ranges is None:
        raise ConfigError("no RANGES are given: a JSON file of the API's ParameterRanges; see --help for an example")
    uses_sample = platform.local and arguments.data is None and not arguments.channel
    options = _tuning_options(arguments, SAMPLE_HYPERPARAMETERS if uses_sample else None)
    search = resolve_search(options)
    folder = results_folder(options, search.spec.name)
    shared = replace(options.training, data=str(_sample_data())) if uses_sample else options.training
    check_tuning(shared, search, folder)
    shared = replace(shared, container=shared.container.with_owner(platform))
    training = trial_training(shared, search, folder)
    request = tuning_request(search.spec, training)
    if arguments.dry_run:
        print(as_json(request))
        if not platform.local:
            print_unchecked_places(training)
            print_cost(describe_cost(request, platform.region), is_request=True)
        return 0
    connected = platform.connect()
    check_training_places(training, platform)
    if not platform.local:
        print_cost(describe_cost(request, platform.region))
    watch = TuningWatch(connected, request, platform.local, folder)
    return watch.run(create=True, is_followed=not arguments.no_wait)


def _watch(arguments: argparse.Namespace, platform: PlatformOptions) -> int:
    connected = platform.connect()
    job = find_job(connected, arguments.watch)
    output = job["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"]
    folder = arguments.results or watched_folder(arguments.watch, output, local=platform.local)
    return TuningWatch(connected, job, platform.local, folder).run()


def _sample_data() -> Path:
    if not SAMPLE_DATA.is_dir():
        print_status(f"writing 1,797 handwritten digits to {SAMPLE_DATA}")
        write_digits(SAMPLE_DATA)
    return SAMPLE_DATA


def _tuning_options(arguments: argparse.Namespace, defaults: Path | None) -> TuningOptions:
    """Convert the arguments; ``defaults`` is a file of hyperparameters that apply unless they are given or tuned."""
    return TuningOptions(
        ranges=arguments.ranges,
        training=training_options(arguments),
        hyperparameters=read_hyperparameters(arguments.hyperparameters, arguments.hyperparameter),
        defaults=read_hyperparameters(defaults, []),
        name=arguments.name,
        results=arguments.results,
        objective=arguments.objective,
        strategy=arguments.strategy,
        jobs=arguments.jobs,
        parallel=arguments.parallel,
        early_stopping=arguments.early_stopping,
        warm_start=tuple(arguments.warm_start),
        transfer=arguments.transfer,
        target=arguments.target,
        max_runtime_s=arguments.max_runtime,
        no_improvement=arguments.no_improvement,
        seed=arguments.seed,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("tune.py", __doc__)
    parser.add_argument("ranges", metavar="RANGES", nargs="?", type=Path, help="JSON file of the API's ParameterRanges")
    parser.add_argument("hyperparameter", nargs="*", metavar="KEY=VALUE", help="fixed hyperparameters")
    _add_search(parser)
    _add_stopping_criteria(parser)
    _add_training(parser)
    add_common(parser)
    add_resource(parser)
    return parser.parse_intermixed_args(arguments)


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search")
    group.add_argument(
        "--objective",
        default="validation:accuracy",
        metavar="METRIC",
        help=f"one of {', '.join(METRICS)}; losses are minimized (default: %(default)s)",
    )
    group.add_argument("--strategy", choices=STRATEGIES, default="bayesian", help="default: %(default)s")
    group.add_argument("--jobs", type=int, metavar="N", help="number of trials (default: 20; grid: all combinations)")
    group.add_argument("--parallel", type=int, metavar="M", help="trials at a time, at most --jobs (default: 2)")
    group.add_argument("--early-stopping", action="store_true", help="stop trials that fall behind the others")
    group.add_argument(
        "--warm-start",
        nargs="+",
        default=[],
        metavar="NAME",
        help="earlier tuning jobs to learn from",
    )
    group.add_argument(
        "--transfer", action="store_true", help="the earlier jobs had other data or another image (TransferLearning)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="random seed of the search")
    group.add_argument("--name", metavar="NAME", help="name of the tuning job, up to 32 characters")
    group.add_argument(
        "--results", type=Path, metavar="DIR", help="folder of the results (default: local_test/tuning/NAME)"
    )


def _add_stopping_criteria(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stopping criteria, in addition to --jobs")
    group.add_argument("--target", type=float, metavar="VALUE", help="stop when the objective reaches this value")
    group.add_argument("--max-runtime", type=int, metavar="SECONDS", help="stop after this time, at least 120 s")
    group.add_argument(
        "--no-improvement", type=int, metavar="N", help="stop when N trials, at least 3, bring no better objective"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trainings")
    group.add_argument("--hyperparameters", type=Path, metavar="FILE", help="JSON object of fixed hyperparameters")
    group.add_argument(
        "--data",
        metavar="PLACE",
        help="folder or s3:// prefix of train/, validation/, test/ (default with --local: handwritten digits)",
    )
    group.add_argument(
        "--channel", action="append", default=[], metavar="NAME=PLACE", help="a further channel; repeatable"
    )
    group.add_argument(
        "--output", metavar="PLACE", help="s3:// prefix for the models; with --local: folder for all results"
    )
    add_training_resources(group)
    group.add_argument("--no-wait", action="store_true", help="exit once the job is created")
    group.add_argument("--watch", metavar="JOB", help="follow this running job instead of creating one")
    group.add_argument("--stop", metavar="JOB", help="stop this job and its running trials")


if __name__ == "__main__":
    sys.exit(main())

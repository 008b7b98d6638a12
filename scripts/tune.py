"""Tune hyperparameters: many trainings, the best of them. RANGES is a JSON file with the API's own ParameterRanges.

At the end a folder holds trials.csv, tuning.html, and best_hyperparameters.json, which train.py and
train_local.sh take as it is. With --local the trials run on this machine; run the same command again after an
interruption, and it goes on.

Examples:
  .venv/bin/python scripts/tune.py scripts/examples/digits/ranges.json --local --jobs 10 epochs=4
  .venv/bin/python scripts/tune.py ranges.json --local --data prepared --early-stopping model=resnet18 epochs=5
  .venv/bin/python scripts/tune.py ranges.json --data s3://my-bucket/dogs --output s3://my-bucket/tuned \\
      --image IMAGE_URI --role ROLE --strategy hyperband --jobs 20 --parallel 4 epochs=20
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS
from classifier.errors import ConfigError
from launch.cli import add_common, add_resource, add_training_resources, run_command, training_options
from launch.terminal import as_json, read_hyperparameters
from launch.tuning.local import LocalTuning
from launch.tuning.options import default_name, fixed_hyperparameters, results_folder, shared_training
from launch.tuning.ranges import Ranges, read_ranges
from launch.tuning.remote import RemoteTuning
from launch.tuning.request import tuning_request
from launch.tuning.spec import STRATEGIES, TuningSpec, check


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    # A polite end by another program is as one by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_command("tune", partial(_tune, options))


def _tune(options: argparse.Namespace) -> int:
    if options.watch and not options.name:
        raise ConfigError("--watch needs the --name of the tuning job")
    training = training_options(options)
    given = read_hyperparameters(options.hyperparameters, options.hyperparameter)
    Hyperparameters.parse(given)
    spec = _tuning_spec(options, read_ranges(options.ranges, given))
    fixed = fixed_hyperparameters(given, spec.ranges, training)
    folder = results_folder(options.results, training, spec.name)
    shared = shared_training(training, fixed, folder, spec)
    if options.dry_run:
        print(as_json(tuning_request(spec, shared)))
        return 0
    if options.local:
        return LocalTuning(spec, shared, folder, options.folder).run()
    return RemoteTuning(spec, shared, folder, options.region).run(wait=not options.no_wait, create=not options.watch)


def _tuning_spec(options: argparse.Namespace, ranges: Ranges) -> TuningSpec:
    spec = TuningSpec(
        name=options.name or default_name(options.ranges, local=options.local),
        ranges=ranges,
        objective=options.objective,
        strategy=options.strategy,
        jobs=options.jobs,
        parallel=options.parallel,
        early_stopping=options.early_stopping,
        warm_start=tuple(options.warm_start),
        transfer=options.transfer,
        target=options.target,
        max_runtime_s=options.max_runtime,
        no_improvement=options.no_improvement,
        seed=options.seed,
    )
    check(spec)
    return spec


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ranges", metavar="RANGES", type=Path, help="a JSON file: the API's ParameterRanges")
    parser.add_argument(
        "hyperparameter",
        nargs="*",
        metavar="KEY=VALUE",
        help="hyperparameters that stay as they are",
    )
    _add_search(parser)
    _add_ends(parser)
    _add_training(parser)
    add_common(parser)
    add_resource(parser)
    return parser.parse_intermixed_args(arguments)


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the search")
    group.add_argument(
        "--objective",
        default="validation:accuracy",
        metavar="METRIC",
        help=f"one of {', '.join(METRICS)}; losses are minimised (%(default)s)",
    )
    group.add_argument("--strategy", choices=STRATEGIES, default="bayesian", help="%(default)s")
    group.add_argument("--jobs", type=int, metavar="N", help="trials in all (20; with grid, every combination)")
    group.add_argument("--parallel", type=int, default=2, metavar="M", help="trials at a time (%(default)s)")
    group.add_argument("--early-stopping", action="store_true", help="stop trials that fall behind the others")
    group.add_argument(
        "--warm-start", nargs="+", default=[], metavar="NAME", help="earlier tuning jobs; with --local, their folders"
    )
    group.add_argument(
        "--transfer", action="store_true", help="the earlier jobs had other data or another image (TransferLearning)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the search")
    group.add_argument("--name", metavar="NAME", help="of the tuning job; up to 32 characters")
    group.add_argument("--results", type=Path, metavar="DIR", help="where the table and the page go")


def _add_ends(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when it is over, if not earlier by --jobs")
    group.add_argument("--target", type=float, metavar="VALUE", help="the objective has reached this value")
    group.add_argument("--max-runtime", type=int, metavar="SECONDS", help="this time is over; at least 120")
    group.add_argument("--no-improvement", type=int, metavar="N", help="N trials brought nothing better; at least 3")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("each training")
    group.add_argument("--hyperparameters", type=Path, metavar="FILE", help="a JSON object of those that stay")
    group.add_argument(
        "--data", metavar="PLACE", help="a folder, or s3://…, of train/, validation/, test/; with --local, else digits"
    )
    group.add_argument("--channel", action="append", default=[], metavar="NAME=PLACE", help="any one channel")
    group.add_argument(
        "--output",
        metavar="PLACE",
        help="s3://… for the models; with --local a folder for everything",
    )
    add_training_resources(group)
    group.add_argument("--no-wait", action="store_true", help="start the job on AWS, and leave")
    group.add_argument("--watch", action="store_true", help="start none, watch the one on AWS that --name names")


if __name__ == "__main__":
    sys.exit(main())

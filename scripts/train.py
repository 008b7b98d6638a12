"""Start a training job on SageMaker, or with --local on this machine with the same request, and follow it.

Hyperparameters are validated before anything is sent; `train --describe` lists them. Ctrl-C stops following; the job
keeps running, and the command that stops it is printed.

Examples:
  .venv/bin/python scripts/train.py --local --data prepared model=mobilenet_v2 epochs=5
  .venv/bin/python scripts/train.py --data s3://my-bucket/dogs --output s3://my-bucket/models --role SageMakerRole \\
      --image 123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:… --spot epochs=10 lr=0.001
  .venv/bin/python scripts/train.py --stop JOB
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
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
from launch.platform.clients import Platform, PlatformOptions
from launch.platform.prices import print_cost
from launch.terminal import as_json, read_hyperparameters
from launch.training.options import (
    check_training,
    check_training_places,
    describe_cost,
    print_unchecked_places,
    training_spec,
)
from launch.training.request import Monitoring, TrainingSpec, training_request
from launch.training.watch import TrainingWatch, find_job, stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("train", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("train.py", __doc__)
    parser.add_argument("hyperparameter", nargs="*", metavar="KEY=VALUE", help="a hyperparameter")
    parser.add_argument("--hyperparameters", type=Path, metavar="FILE", help="JSON object of hyperparameters")
    parser.add_argument(
        "--data", metavar="PLACE", help="s3://… (with --local, or a folder) with train/, validation/, test/, or classes"
    )
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME=PLACE", help="a further channel; repeatable"
    )
    parser.add_argument("--output", metavar="PLACE", help="where the artifacts go: s3://…, or with --local a folder")
    parser.add_argument("--name", help="the job's name (default: one with the time in it)")
    add_common(parser)
    add_resource(parser)

    resources = parser.add_argument_group("instances and time limits")
    add_training_resources(resources)
    resources.add_argument(
        "--keep-alive",
        type=int,
        metavar="SECONDS",
        help="keep the instances for another job, at their cost (warm pool)",
    )
    resources.add_argument("--checkpoints", metavar="PLACE", help="where checkpoints are saved and resumed from")
    resources.add_argument(
        "--interrupt-after",
        type=float,
        metavar="SECONDS",
        help="with --local --spot: interrupt the job once, as Spot does, and start it again with its checkpoints",
    )

    monitoring = parser.add_argument_group("monitoring")
    monitoring.add_argument("--debugger", action="store_true", help="save tensors (as debug=true does)")
    monitoring.add_argument("--profiler", action="store_true", help="save a profile (as profile=true does)")
    monitoring.add_argument(
        "--aws-debugger",
        action="store_true",
        help="have SageMaker upload tensors and profile below --output while the job runs; new accounts may not",
    )
    monitoring.add_argument(
        "--save-interval", type=int, metavar="STEPS", help="with --aws-debugger: steps between saves"
    )
    monitoring.add_argument(
        "--remote-debug", action="store_true", help="let `aws ssm start-session` open a shell in the container"
    )
    monitoring.add_argument("--no-wait", action="store_true", help="exit once the job is created")
    monitoring.add_argument("--reports", type=Path, metavar="DIR", help="where output.tar.gz is unpacked")
    monitoring.add_argument("--watch", metavar="JOB", help="follow this running job instead of creating one")
    monitoring.add_argument("--stop", metavar="JOB", help="stop this job, which keeps its best model")
    return parser.parse_intermixed_args(arguments)


def _run(options: argparse.Namespace) -> int:
    if options.stop:
        if options.dry_run:
            print(as_json({"TrainingJobName": options.stop}))
            return 0
        stop(platform_options(options).connect(), options.stop)
        return 0
    if options.watch:
        platform = platform_options(options).connect()
        find_job(platform, options.watch)
        return _watch(platform, options.watch, options).run()
    values = read_hyperparameters(options.hyperparameters, options.hyperparameter)
    Hyperparameters.parse(values)
    check_needs(options, save_interval="aws_debugger", interrupt_after="spot")
    check_needs(options, interrupt_after="local")
    monitoring = Monitoring(
        debugger=options.debugger,
        profiler=options.profiler,
        aws_debugger=options.aws_debugger,
        save_interval=options.save_interval,
    )
    shared = training_options(options)
    requested = replace(
        shared,
        platform=replace(shared.platform, interrupt_after_s=_interrupt_after_s(options)),
        name=options.name,
        checkpoints=options.checkpoints,
        remote_debug=options.remote_debug,
        resources=replace(shared.resources, keep_alive_s=options.keep_alive),
        monitoring=monitoring,
    )
    check_training(requested, values)
    requested = replace(requested, container=requested.container.with_owner(requested.platform))
    spec = training_spec(requested, values)
    request = training_request(spec)
    if options.dry_run:
        print(as_json(request))
        print_unchecked_places(spec)
        _print_cost(spec, requested.platform, is_request=True)
        return 0
    platform = requested.platform.connect()
    check_training_places(spec, requested.platform)
    _print_cost(spec, requested.platform)
    return _watch(platform, spec.job_name, options).run(request, is_followed=not options.no_wait)


def _print_cost(spec: TrainingSpec, platform: PlatformOptions, *, is_request: bool = False) -> None:
    if not platform.local:
        print_cost(describe_cost(spec, platform), is_request=is_request)


def _interrupt_after_s(options: argparse.Namespace) -> float:
    if options.interrupt_after is not None and not 0 < options.interrupt_after < inf:
        raise ConfigError(f"--interrupt-after {options.interrupt_after:g}: more than 0 seconds")
    return options.interrupt_after or 0


def _watch(platform: Platform, name: str, options: argparse.Namespace) -> TrainingWatch:
    reports = options.reports or options.folder / "reports" / name
    return TrainingWatch(platform, name, local=options.local, reports=reports)


if __name__ == "__main__":
    sys.exit(main())

"""Train on SageMaker, or with --local on this machine by the same request; watch it, and look at what came out.

Hyperparameters are checked before anything is sent; `train --describe` lists them. Ctrl-C ends the watching alone.

Examples:
  .venv/bin/python scripts/train.py --local --data prepared model=mobilenet_v2 epochs=5
  .venv/bin/python scripts/train.py --data s3://my-bucket/dogs --output s3://my-bucket/models --role SageMakerRole \\
      --image 123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:… --spot epochs=10 lr=0.001
  .venv/bin/python scripts/train.py --stop JOB
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.contract.hyperparameters import Hyperparameters
from launch.cli import add_common, add_resource, as_json, check_network, read_hyperparameters, run_command, say
from launch.platform.clients import aws_platform, local_platform
from launch.training.options import check_places, spec_of
from launch.training.request import DEFAULT_INSTANCE, training_request
from launch.training.watch import start, stop, watch


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("train", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hyperparameter", nargs="*", metavar="KEY=VALUE", help="a hyperparameter")
    parser.add_argument("--hyperparameters", type=Path, metavar="FILE", help="a JSON object of them")
    parser.add_argument("--data", metavar="PLACE", help="train/, validation/, test/: s3://…, or a folder with --local")
    parser.add_argument("--channel", action="append", default=[], metavar="NAME=PLACE", help="any other channel")
    parser.add_argument("--output", metavar="PLACE", help="where the artifacts go: s3://…; with --local a folder")
    parser.add_argument("--name", help="the job's name (default: one with the time in it)")
    add_common(parser)
    add_resource(parser)

    machines = parser.add_argument_group("machines and time")
    machines.add_argument("--instance", default=DEFAULT_INSTANCE, metavar="TYPE", help="default: %(default)s")
    machines.add_argument("--instances", type=int, default=1, metavar="N", help="hosts (%(default)s)")
    machines.add_argument("--volume", type=int, default=50, metavar="GB", help="each host's disk (%(default)s)")
    machines.add_argument("--max-run", type=int, default=6 * 3600, metavar="SECONDS", help="default: %(default)s")
    machines.add_argument("--fast-file", action="store_true", help="read photos from S3 as they are needed")
    machines.add_argument("--spot", action="store_true", help="spare capacity, cheaper; saves checkpoints")
    machines.add_argument("--max-wait", type=int, metavar="SECONDS", help="with --spot, --max-run and the waiting")
    machines.add_argument("--checkpoints", metavar="PLACE", help="another job's, to go on from them")

    looking = parser.add_argument_group("what is seen of it")
    looking.add_argument("--debugger", action="store_true", help="save tensors (debug=true says so too)")
    looking.add_argument("--save-interval", type=int, metavar="STEPS", help="with --debugger")
    looking.add_argument("--profiler", action="store_true", help="save a profile (profile=true says so too)")
    looking.add_argument("--no-wait", action="store_true", help="start it, and leave")
    looking.add_argument("--reports", type=Path, metavar="DIR", help="where output.tar.gz is unpacked")
    looking.add_argument("--watch", metavar="JOB", help="start none, watch this one")
    looking.add_argument("--stop", metavar="JOB", help="start none, stop this one; it keeps its best model")
    return parser.parse_intermixed_args(arguments)


def _run(options: argparse.Namespace) -> int:
    if options.stop or options.watch:
        platform = local_platform(options.folder) if options.local else aws_platform(options.region)
        return stop(platform, options.stop) if options.stop else watch(platform, options.watch, options)
    values = read_hyperparameters(options.hyperparameters, options.hyperparameter)
    parsed = Hyperparameters.parse(values)
    check_network(options)
    spec = spec_of(options, values, parsed)
    request = training_request(spec)
    if options.dry_run:
        print(as_json(request))
        return 0
    platform = local_platform(options.folder) if options.local else aws_platform(options.region)
    check_places(spec, options.region)
    start(platform, request)
    if options.no_wait:
        print(f"job         {spec.job_name}", flush=True)
        say(f"watch it: .venv/bin/python scripts/train.py --watch {spec.job_name}{platform.flags}")
        return 0
    return watch(platform, spec.job_name, options)


if __name__ == "__main__":
    sys.exit(main())

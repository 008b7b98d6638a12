"""Classify a folder of photos in a batch transform job on SageMaker, or with --local on this machine.

MODEL and PHOTOS are given as to deploy.py and train.py. The predictions for each photo go to a file of its name plus
.out below --output; an unreadable photo gets an error there, and the others are classified. Ctrl-C stops following; the
job keeps running, and the command that stops it is printed.

Examples:
  .venv/bin/python scripts/batch_transform.py --local JOB prepared/test --output answers
  .venv/bin/python scripts/batch_transform.py JOB s3://my-bucket/photos --output s3://my-bucket/answers
  .venv/bin/python scripts/batch_transform.py --stop JOB
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from classifier.errors import ConfigError
from launch.cli import add_common, add_resource, container_options, create_parser, platform_options, run_command
from launch.platform.clients import PlatformOptions
from launch.platform.models import artifact_version, resolve_artifact
from launch.platform.places import check_places, print_unchecked
from launch.platform.prices import print_cost
from launch.terminal import as_json
from launch.transform import (
    DEFAULT_INSTANCE,
    TransformOptions,
    check_transform,
    describe_cost,
    find_job,
    run,
    stop,
    transform_requests,
    watch,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("batch_transform", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("batch_transform.py", __doc__)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="artifact's address, or name of a training job")
    parser.add_argument("photos", metavar="PHOTOS", nargs="?", help="s3://…, or with --local a folder")
    parser.add_argument("--output", metavar="PLACE", help="where the answers go: s3://…, or with --local a folder")
    parser.add_argument("--name", help="the job's name (default: one with the time in it)")
    parser.add_argument(
        "--accept",
        metavar="TYPE",
        help="content type of answers (default: application/json)",
    )
    parser.add_argument(
        "--manifest", action="store_true", help="PHOTOS is the address of a manifest, a JSON list of S3 objects"
    )
    parser.add_argument(
        "--join-input",
        action="store_true",
        help="PHOTOS are JSON Lines, a photo in base64 on each; each line is repeated with its answer",
    )
    parser.add_argument(
        "--instance", default=DEFAULT_INSTANCE, metavar="TYPE", help="instance type (default: %(default)s)"
    )
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="number (default: %(default)s)")
    parser.add_argument(
        "--concurrent", type=int, default=4, metavar="N", help="photos in flight per instance (default: %(default)s)"
    )
    parser.add_argument(
        "--max-payload", type=int, default=6, metavar="MB", help="size limit of a photo (default: %(default)s)"
    )
    parser.add_argument("--watch", metavar="JOB", help="follow this running job instead of creating one")
    parser.add_argument("--stop", metavar="JOB", help="stop this job instead of creating one")
    add_common(parser)
    add_resource(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    platform = platform_options(options)
    if options.stop:
        if options.dry_run:
            print(as_json({"TransformJobName": options.stop}))
            return 0
        stop(platform.connect(), options.stop)
        return 0
    if options.watch:
        clients = platform.connect()
        return watch(clients, find_job(clients, options.watch), local=platform.local)
    container = container_options(options)
    if not (options.model and options.photos and options.output):
        raise ConfigError("MODEL, PHOTOS and --output are required; see --help for an example")
    transform = TransformOptions(
        platform=platform,
        container=container,
        photos=options.photos,
        output=options.output,
        name=options.name,
        manifest=options.manifest,
        join_input=options.join_input,
        accept=options.accept,
        instance_type=options.instance,
        num_instances=options.instances,
        max_concurrent=options.concurrent,
        max_payload_mb=options.max_payload,
    )
    check_transform(options.model, transform)
    transform = replace(transform, container=container.with_owner(platform))
    data = resolve_artifact(options.model, platform)
    requests = transform_requests(transform, data, artifact_version(data, platform))
    job = requests["CreateTransformJob"]
    source = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    output = job["TransformOutput"]["S3OutputPath"]
    if options.dry_run:
        print(as_json(requests))
        print_unchecked([source, output])
        _print_cost(job, platform, is_request=True)
        return 0
    check_places([source], [output], platform)
    clients = platform.connect()
    _print_cost(job, platform)
    return run(clients, requests, local=platform.local)


def _print_cost(job: Mapping[str, Any], platform: PlatformOptions, *, is_request: bool = False) -> None:
    if not platform.local:
        print_cost(describe_cost(job, platform.region), is_request=is_request)


if __name__ == "__main__":
    sys.exit(main())

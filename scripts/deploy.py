"""Serve a model from an endpoint on SageMaker, or with --local on this machine, until teardown.py removes it.

MODEL is what train.py prints: the artifact's address, or the job's name. With --multi-model it is the prefix, or with
--local the folder, under which many model.tar.gz lie. The same command again changes nothing; with another model or
other settings it updates the endpoint in place.

Examples:
  .venv/bin/python scripts/deploy.py --local image-classifier-20260101-120000-a1b2
  .venv/bin/python scripts/deploy.py s3://my-bucket/models/JOB/output/model.tar.gz --instance ml.g5.xlarge
  .venv/bin/python scripts/deploy.py JOB --max-instances 4 --update canary --alarm dogs-5xx
  .venv/bin/python scripts/deploy.py JOB --serverless
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aws.clients import client
from aws.errors import explained
from launch.cli import add_common, add_resource, as_json, run_command, say
from launch.endpoint.deployment import Deployment, artifact_of
from launch.endpoint.options import DEFAULT_INSTANCE, build_requests, check_options, version_for
from launch.platform.clients import Platform, aws_platform, command, local_platform
from launch.platform.prices import describe_hourly


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("deploy", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deploy.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="an artifact's address, or a training job's name")
    parser.add_argument("--name", default="image-classifier", help="the endpoint's (%(default)s)")
    add_common(parser)
    add_resource(parser)
    parser.add_argument("--instance", metavar="TYPE", help=f"default: {DEFAULT_INSTANCE}")
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="how many (%(default)s)")

    kind = parser.add_argument_group("kinds of endpoints").add_mutually_exclusive_group()
    kind.add_argument("--serverless", action="store_true", help="paid by the request; on CPUs, slow to wake")
    kind.add_argument("--asynchronous", metavar="S3_URI", help="photos are named in S3; the answers go there")
    kind.add_argument("--multi-model", action="store_true", help="many models, loaded when asked for")
    parser.add_argument("--memory", type=int, default=4096, metavar="MB", help="with --serverless (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=5, metavar="N", help="with --serverless (%(default)s)")
    parser.add_argument("--capture", metavar="S3_URI", help="keep requests and answers there")
    parser.add_argument("--capture-percent", type=int, default=100, metavar="N", help="how many (%(default)s)")

    scaling = parser.add_argument_group("scaling and updating")
    scaling.add_argument("--max-instances", type=int, metavar="N", help="scale out up to N, by load")
    scaling.add_argument("--min-instances", type=int, metavar="N", help="with --max-instances; default: 1")
    scaling.add_argument("--requests-each", type=float, default=4.0, metavar="N", help="at a time (%(default)s)")
    scaling.add_argument("--update", choices=("all-at-once", "canary", "rolling"), default="all-at-once")
    scaling.add_argument("--update-percent", type=int, default=10, metavar="N", help="of the fleet (%(default)s)")
    scaling.add_argument("--bake", type=int, default=300, metavar="SECONDS", help="watch so long (%(default)s)")
    scaling.add_argument("--alarm", action="append", default=[], metavar="NAME", help="a CloudWatch alarm: roll back")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    check_options(options)
    data = artifact_of(options, lambda: _platform(options))
    version = "" if options.multi_model else version_for(data, options)
    requests = build_requests(options, data, version)
    if options.dry_run:
        print(as_json(requests))
        return 0
    return _deploy(_platform(options), requests, options)


def _platform(options: argparse.Namespace) -> Platform:
    return local_platform(options.folder) if options.local else aws_platform(options.region)


def _deploy(platform: Platform, requests: Mapping[str, Any], options: argparse.Namespace) -> int:
    deployment = Deployment(platform, lambda line: print(line, flush=True))
    try:
        deployment.ensure_model(requests["CreateModel"])
        deployment.ensure_config(requests["CreateEndpointConfig"])
        deployment.bring_up(requests["CreateEndpoint"], requests["UpdateEndpoint"])
        _scale(requests, options)
    except KeyboardInterrupt:
        say("deploy: no longer waiting; the endpoint comes up all the same")
        _say_what_it_costs(platform, options)
        return 130
    except Exception:
        deployment.unmake()
        raise
    print(f"endpoint    {options.name} is in service")
    print(f"next        {command('predict', options.name, 'PHOTO')}{platform.flags}", flush=True)
    _say_what_it_costs(platform, options)
    return 0


def _scale(requests: Mapping[str, Any], options: argparse.Namespace) -> None:
    if "PutScalingPolicy" not in requests:
        return
    if options.local:
        say("deploy: on this machine there is one server; --max-instances was left out")
        return
    with explained("scaling"):
        scaling = client("application-autoscaling", region=options.region)
        scaling.register_scalable_target(**requests["RegisterScalableTarget"])
        scaling.put_scaling_policy(**requests["PutScalingPolicy"])


def _say_what_it_costs(platform: Platform, options: argparse.Namespace) -> None:
    if options.local:
        cost = "it runs on this machine"
    elif options.serverless:
        cost = "it costs nothing as long as nobody asks"
    else:
        cost = f"it costs {describe_hourly(options.instance or DEFAULT_INSTANCE, options.instances)}, asked or not"
    say(f"{cost}; remove it with {command('teardown')}{platform.flags}")


if __name__ == "__main__":
    sys.exit(main())

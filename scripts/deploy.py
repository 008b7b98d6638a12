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
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError
from launch.cloud import CloudError, client, explained, role_arn
from launch.hosting import Deployment, artifact_of, name_for, version_of
from launch.options import add_common, add_resource, as_json, check_network, pairs, run_command, say
from launch.platform import Platform, aws_platform, command, local_platform
from launch.prices import describe_hourly
from launch.requests.autoscaling import ScalingSpec, policy_request, target_request
from launch.requests.endpoint import (
    Capture,
    EndpointSpec,
    Serverless,
    Update,
    config_request,
    create_request,
    update_request,
)
from launch.requests.instances import has_gpu
from launch.requests.model import ModelSpec, model_request
from launch.requests.training import Network
from launch.training_job import LOCAL_ROLE, image_of

_DEFAULT_INSTANCE = "ml.m5.large"


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
    parser.add_argument("--instance", metavar="TYPE", help=f"default: {_DEFAULT_INSTANCE}")
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
    _check(options)
    data = artifact_of(options, lambda: _platform(options))
    version = "" if options.multi_model else _version(data, options)
    requests = build_requests(options, data, version)
    if options.dry_run:
        print(as_json(requests))
        return 0
    return _deploy(_platform(options), requests, options)


def _platform(options: argparse.Namespace) -> Platform:
    return local_platform(options.folder) if options.local else aws_platform(options.region)


def _check(options: argparse.Namespace) -> None:
    check_network(options)
    if options.serverless:
        for name in ("instance", "capture", "max_instances", "network_isolation", "vpc_subnets"):
            if getattr(options, name):
                raise ConfigError(f"--{name.replace('_', '-')} does not go with --serverless: leave one of them out")
        if options.update != "all-at-once":
            raise ConfigError("--update does not go with --serverless, which has no fleet: leave one of them out")
    if options.multi_model and has_gpu(options.instance or ""):
        raise ConfigError("--multi-model is served on CPUs: take another --instance, such as ml.m5.xlarge")
    if options.update != "all-at-once" and not options.alarm:
        raise ConfigError(f"--update {options.update} needs at least one --alarm, which would roll it back")
    if len(options.alarm) > 10:
        raise ConfigError("--alarm can be given ten times at most")
    most = 50
    if (
        options.update != "all-at-once"
        and not (5 if options.update == "rolling" else 1) <= options.update_percent <= most
    ):
        raise ConfigError(f"--update-percent {options.update_percent}: at most {most}, and for rolling at least 5")
    if options.min_instances is not None and options.max_instances is None:
        raise ConfigError("--min-instances goes with --max-instances")
    if options.max_instances is not None and options.max_instances < max(options.min_instances or 1, 1):
        raise ConfigError("--max-instances has to be at least --min-instances, and 1")
    if options.min_instances == 0 and not options.asynchronous:
        raise ConfigError("--min-instances 0 is for --asynchronous alone: others need one that answers")


def _version(data: str, options: argparse.Namespace) -> str:
    try:
        return version_of(data, options.region)
    except CloudError:
        if not options.dry_run:
            raise
        say("deploy: S3 was not reached, so the names below are not those of the real run")
        return ""


def build_requests(options: argparse.Namespace, data: str, version: str) -> dict[str, Any]:
    """All requests of a deployment, in their order. Names follow from contents, so the same gives the same."""
    tags, environment = pairs(options.tag, "--tag KEY=VALUE"), pairs(options.env, "--env KEY=VALUE")
    model = ModelSpec(
        name="",
        image=image_of(options),
        role=LOCAL_ROLE if options.local else role_arn(options.role, options.region),
        data=data,
        multi_model=options.multi_model,
        network_isolation=options.network_isolation,
        network=Network(subnets=tuple(options.vpc_subnets), security_groups=tuple(options.security_groups)),
        environment=environment,
        tags=tags,
    )
    model_name = name_for(options.name, model_request(model), version)
    config = _endpoint_spec(options, model_name, tags)
    config_name = name_for(options.name, config_request(config))
    update = Update(
        manner=options.update, percent=options.update_percent, bake_s=options.bake, alarms=tuple(options.alarm)
    )
    requests = {
        "CreateModel": {**model_request(model), "ModelName": model_name},
        "CreateEndpointConfig": {**config_request(config), "EndpointConfigName": config_name},
        "CreateEndpoint": create_request(options.name, config_name, tags),
        "UpdateEndpoint": update_request(options.name, config_name, update),
    }
    return {**requests, **_scaling(options)}


def _endpoint_spec(options: argparse.Namespace, model_name: str, tags: Mapping[str, str]) -> EndpointSpec:
    serverless = Serverless(memory_mb=options.memory, max_concurrency=options.concurrency)
    return EndpointSpec(
        config_name="",
        model_name=model_name,
        instance_type=options.instance or _DEFAULT_INSTANCE,
        num_instances=options.instances,
        serverless=serverless if options.serverless else None,
        asynchronous=_place(options.asynchronous, options) if options.asynchronous else None,
        capture=Capture(place=_place(options.capture, options), percent=options.capture_percent)
        if options.capture
        else None,
        kms_key=options.kms_key,
        tags=tags,
    )


def _place(text: str, options: argparse.Namespace) -> str:
    return Path(text).resolve().as_uri() if options.local and "://" not in text else text


def _scaling(options: argparse.Namespace) -> dict[str, Any]:
    if options.max_instances is None:
        return {}
    spec = ScalingSpec(
        endpoint=options.name,
        min_instances=1 if options.min_instances is None else options.min_instances,
        max_instances=options.max_instances,
        target=options.requests_each,
        asynchronous=bool(options.asynchronous),
    )
    return {"RegisterScalableTarget": target_request(spec), "PutScalingPolicy": policy_request(spec)}


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
        cost = f"it costs {describe_hourly(options.instance or _DEFAULT_INSTANCE, options.instances)}, asked or not"
    say(f"{cost}; remove it with {command('teardown')}{platform.flags}")


if __name__ == "__main__":
    sys.exit(main())

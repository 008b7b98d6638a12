"""A deployment as the command line asks for it → all its requests."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws.clients import role_arn
from aws.errors import CloudError
from classifier.errors import ConfigError
from launch.cli import check_network, pairs, say
from launch.endpoint.deployment import name_for, version_of
from launch.endpoint.request import (
    Capture,
    EndpointSpec,
    ModelSpec,
    ScalingSpec,
    Serverless,
    Update,
    config_request,
    create_request,
    model_request,
    policy_request,
    target_request,
    update_request,
)
from launch.platform.resources import has_gpu
from launch.training.options import LOCAL_ROLE, image_of
from launch.training.request import Network

DEFAULT_INSTANCE = "ml.m5.large"


def check_options(options: argparse.Namespace) -> None:
    """
    Raises:
        ConfigError: two of them do not go together.
    """
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


def version_for(data: str, options: argparse.Namespace) -> str:
    """What tells this artifact from a later one; nothing, where a dry run can't reach it.

    Raises:
        CloudError: there is no such object, or S3 is not reached.
    """
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
        instance_type=options.instance or DEFAULT_INSTANCE,
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

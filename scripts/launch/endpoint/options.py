"""Deployment options of the command line, validated and resolved into all requests of a deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aws.request_check import check
from classifier.errors import ConfigError
from launch.endpoint.request import (
    Capture,
    EndpointSpec,
    ScalingSpec,
    Serverless,
    Update,
    config_request,
    create_request,
    policy_request,
    target_request,
    update_request,
    wake_alarm_request,
    wake_policy_request,
)
from launch.platform.clients import PlatformOptions
from launch.platform.models import content_name, named_model_request, resolve_artifact
from launch.platform.resources import NO_OPTIONS, ContainerOptions, has_gpu

DEFAULT_INSTANCE = "ml.m5.large"
_MAX_ALARMS = 10
_MIN_FLEET = 2  # instances, of which a canary or a batch is at most half
_MAX_UPDATE_PERCENT = 50
_MIN_ROLLING_PERCENT = 5


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """Autoscaling between two numbers of instances; without ``max_instances`` there is none.

    Attributes:
        target: concurrent requests per instance.
        cooldown_s: time between two removals of instances, seconds.
    """

    min_instances: int | None = None
    max_instances: int | None = None
    target: float = 4.0
    cooldown_s: int = 300


ALL_AT_ONCE, NO_SCALING = Update(), ScalingOptions()


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """An endpoint as requested on the command line.

    Attributes:
        name: the endpoint's name, and the prefix of its model's and config's.
        instance_type: default: :data:`DEFAULT_INSTANCE`.
        num_instances: default: as many as the endpoint has, or one.
        ami: the hosts' image, for instances with a GPU; default: one that suits the instance type.
        asynchronous: where the answers of an asynchronous endpoint go.
        max_invocations: requests that its instances get at a time.
        topic: an SNS topic that it notifies.
        take_over: whether the endpoint may be one that another program has created.
    """

    platform: PlatformOptions
    name: str
    container: ContainerOptions = NO_OPTIONS
    instance_type: str | None = None
    num_instances: int | None = None
    ami: str | None = None
    multi_model: bool = False
    serverless: Serverless | None = None
    asynchronous: str | None = None
    max_invocations: int | None = None
    topic: str | None = None
    capture: Capture | None = None
    scaling: ScalingOptions = NO_SCALING
    update: Update = ALL_AT_ONCE
    take_over: bool = False


def check_options(options: EndpointOptions) -> None:
    """Check that the options go together.

    Raises:
        ConfigError: they do not; the message names the ones in conflict.
    """
    if options.serverless:
        _check_serverless(options)
    elif options.ami and not has_gpu(options.instance_type or DEFAULT_INSTANCE):
        raise ConfigError(f"--ami {options.ami} has a GPU's driver: choose an --instance with a GPU, or leave it out")
    if options.multi_model and has_gpu(options.instance_type or ""):
        raise ConfigError("--multi-model is served on CPUs: choose another --instance, such as ml.m5.xlarge")
    _check_update(options.update)
    _check_fleet(options)
    _check_scaling(options.scaling, asynchronous=options.asynchronous is not None)


def check_endpoint(model: str, options: EndpointOptions) -> None:
    """Check the requests of a deployment, before anything is sent.

    Raises:
        UserError: as :func:`endpoint_requests`, except for what only AWS knows; or AWS would refuse a request.
    """
    check_options(options)
    assumed = replace(options, platform=options.platform.assuming())
    requests = endpoint_requests(assumed, resolve_artifact(model, assumed.platform), "")
    # The endpoint's name first: those of model and config begin with it.
    check({"CreateEndpoint": requests["CreateEndpoint"], **requests}, local=options.platform.local)


def endpoint_requests(options: EndpointOptions, data: str, version: str) -> dict[str, Any]:
    """Return the requests of a deployment by operation, in the order in which they are sent; a list if there are many.

    Models and configs are named after their contents, so that the same options always give the same requests.

    Raises:
        ConfigError: no image is given.
        CloudError: no role is given, or IAM has none of that name.
    """
    tags = options.container.tags
    model = named_model_request(
        options.name, options.container, options.platform, data, version, multi=options.multi_model
    )
    config = config_request(_endpoint_spec(options, model["ModelName"]))
    config_name = content_name(options.name, config)
    return {
        "CreateModel": model,
        "CreateEndpointConfig": {**config, "EndpointConfigName": config_name},
        "CreateEndpoint": create_request(options.name, config_name, tags),
        "UpdateEndpoint": update_request(
            options.name, config_name, options.update, retain_count=_retains_count(options)
        ),
        **_scaling_requests(options),
    }


def _retains_count(options: EndpointOptions) -> bool:
    """Whether an update keeps the number of instances: none is given, or autoscaling chooses it."""
    return options.num_instances is None or options.scaling.max_instances is not None


def _check_serverless(options: EndpointOptions) -> None:
    security = options.container.security
    conflicts: Mapping[str, object] = {
        "--instance": options.instance_type,
        "--instances": options.num_instances is not None,
        "--ami": options.ami,
        "--kms-key": security.kms_key,
        "--capture": options.capture,
        "--max-instances": options.scaling.max_instances,
        "--network-isolation": security.network_isolation,
        "--vpc-subnets": security.subnets,
    }
    for name, value in conflicts.items():
        if value:
            raise ConfigError(f"{name} can't be combined with --serverless: leave one of them out")
    if options.update.strategy != "all-at-once":
        raise ConfigError("--update can't be combined with --serverless, which has no fleet: leave one of them out")


def _check_fleet(options: EndpointOptions) -> None:
    """Check that there is a part of the instances to update; without ``--instances`` that is the endpoint's to say."""
    if options.update.strategy == "all-at-once" or options.num_instances is None:
        return
    if max(options.num_instances, options.scaling.max_instances or 1) < _MIN_FLEET:
        raise ConfigError(
            f"--update {options.update.strategy} replaces a part of the instances at a time, and there is one: raise "
            "--instances or --max-instances, or leave --update out"
        )


def _check_update(update: Update) -> None:
    if len(update.alarms) > _MAX_ALARMS:
        raise ConfigError(f"--alarm can be given {_MAX_ALARMS} times at most")
    if update.strategy == "all-at-once":
        return
    if not update.alarms:
        raise ConfigError(f"--update {update.strategy} needs at least one --alarm, which triggers the rollback")
    low = _MIN_ROLLING_PERCENT if update.strategy == "rolling" else 1
    if not low <= update.percent <= _MAX_UPDATE_PERCENT:
        raise ConfigError(f"--update-percent {update.percent}: from {low} to {_MAX_UPDATE_PERCENT}")


def _check_scaling(scaling: ScalingOptions, *, asynchronous: bool) -> None:
    low, high = scaling.min_instances, scaling.max_instances
    if high is None:
        if low is not None:
            raise ConfigError("--min-instances needs --max-instances")
        return
    if scaling.cooldown_s < 0:
        raise ConfigError(f"--cooldown {scaling.cooldown_s}: at least 0 seconds")
    if high < max(low or 1, 1):
        raise ConfigError("--max-instances has to be at least --min-instances, and at least 1")
    if low == 0 and not asynchronous:
        raise ConfigError("--min-instances 0 needs --asynchronous: other endpoints always have an instance")


def _endpoint_spec(options: EndpointOptions, model_name: str) -> EndpointSpec:
    local = options.platform.local
    capture = options.capture
    return EndpointSpec(
        config_name="",
        model_name=model_name,
        instance_type=options.instance_type or DEFAULT_INSTANCE,
        num_instances=1 if options.num_instances is None else options.num_instances,
        ami=options.ami,
        serverless=options.serverless,
        asynchronous=_output_uri(options.asynchronous, local=local) if options.asynchronous else None,
        max_invocations=options.max_invocations,
        topic=options.topic,
        capture=Capture(place=_output_uri(capture.place, local=local), percent=capture.percent) if capture else None,
        kms_key=options.container.security.kms_key,
        tags=options.container.tags,
    )


def _output_uri(text: str, *, local: bool) -> str:
    return Path(text).resolve().as_uri() if local and "://" not in text else text


def _scaling_requests(options: EndpointOptions) -> dict[str, Any]:
    scaling = options.scaling
    if scaling.max_instances is None:
        return {}
    spec = ScalingSpec(
        endpoint=options.name,
        min_instances=1 if scaling.min_instances is None else scaling.min_instances,
        max_instances=scaling.max_instances,
        target=scaling.target,
        cooldown_s=scaling.cooldown_s,
        asynchronous=options.asynchronous is not None,
    )
    requests = {"RegisterScalableTarget": target_request(spec), "PutScalingPolicy": [policy_request(spec)]}
    if spec.min_instances > 0:
        return requests
    policies = [*requests["PutScalingPolicy"], wake_policy_request(spec)]
    return {**requests, "PutScalingPolicy": policies, "PutMetricAlarm": wake_alarm_request(spec)}

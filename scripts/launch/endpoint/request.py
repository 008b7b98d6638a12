"""Endpoint specifications and the requests that create, update and scale an endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from classifier.contract.driver import inference_ami
from launch.platform.autoscaling import wake_name
from launch.platform.resources import VARIANT, has_gpu, scalable_target, tag_list

# The platform's limit for a container to start; the largest models load in less.
_STARTUP_TIMEOUT_S = 480
_TERMINATION_WAIT_S = 60


@dataclass(frozen=True, kw_only=True)
class Serverless:
    """Memory and concurrent requests of a serverless endpoint.

    Attributes:
        memory_mb: MB, which also decides the share of a CPU.
        provisioned: concurrent requests for which containers are kept running, at their cost.
    """

    memory_mb: int = 4096
    max_concurrency: int = 5
    provisioned: int | None = None


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Recording of requests and answers in S3.

    Attributes:
        place: the prefix that they are written below.
        percent: share of the requests, 1 to 100.
    """

    place: str
    percent: int = 100


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """An endpoint configuration with one model.

    Attributes:
        ami: host image, which has the NVIDIA driver; default: one that suits the instance type.
        asynchronous: where an asynchronous endpoint writes its answers; its requests name photos in S3.
        max_invocations: requests that an instance of it gets at a time; None for the platform's choice.
        topic: an SNS topic that it notifies of each answer and failure.
    """

    config_name: str
    model_name: str
    instance_type: str = "ml.m5.large"
    num_instances: int = 1
    ami: str | None = None
    serverless: Serverless | None = None
    asynchronous: str | None = None
    max_invocations: int | None = None
    topic: str | None = None
    capture: Capture | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Update:
    """How traffic moves to the new fleet of an updated endpoint.

    Attributes:
        strategy: all instances at once, a canary first, or in batches.
        percent: size of the canary or of a batch, percent of the fleet.
        bake_s: monitoring period before the update completes or the next batch follows, seconds.
        alarms: CloudWatch alarms that roll the update back.
    """

    strategy: Literal["all-at-once", "canary", "rolling"] = "all-at-once"
    percent: int = 10
    bake_s: int = 300
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScalingSpec:
    """Autoscaling of an endpoint.

    Attributes:
        target: concurrent requests per instance, or queued requests per instance of an asynchronous endpoint.
        cooldown_s: time between two removals of instances, seconds.
    """

    endpoint: str
    min_instances: int
    max_instances: int
    target: float = 4.0
    cooldown_s: int = 300
    asynchronous: bool = False


def config_request(spec: EndpointSpec) -> dict[str, Any]:
    """Return the CreateEndpointConfig request."""
    request: dict[str, Any] = {
        "EndpointConfigName": spec.config_name,
        "ProductionVariants": [_variant(spec)],
        "Tags": tag_list(spec.tags),
    }
    if spec.kms_key and not spec.serverless:
        request["KmsKeyId"] = spec.kms_key
    if spec.asynchronous:
        request["AsyncInferenceConfig"] = _asynchronous(spec, spec.asynchronous)
    if spec.capture:
        request["DataCaptureConfig"] = _capture(spec.capture)
    return request


def create_request(endpoint: str, config: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the CreateEndpoint request."""
    return {"EndpointName": endpoint, "EndpointConfigName": config, "Tags": tag_list(tags)}


def update_request(endpoint: str, config: str, update: Update, *, retain_count: bool = True) -> dict[str, Any]:
    """Return the UpdateEndpoint request.

    Args:
        retain_count: keep the present number of instances, which autoscaling may have chosen, instead of the config's.
    """
    # The config's own capture settings: retained ones would outlive --capture, and override a new one.
    replaced = ["DataCaptureConfig"] if retain_count else ["DesiredInstanceCount", "DataCaptureConfig"]
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": config,
        "RetainAllVariantProperties": True,
        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": one} for one in replaced],
        **({"DeploymentConfig": _deployment(update)} if update.strategy != "all-at-once" or update.alarms else {}),
    }


def target_request(spec: ScalingSpec) -> dict[str, Any]:
    """Return the RegisterScalableTarget request."""
    return {**scalable_target(spec.endpoint), "MinCapacity": spec.min_instances, "MaxCapacity": spec.max_instances}


def policy_name(endpoint: str) -> str:
    """Return the name of the scaling policy of an endpoint, by which a later deployment finds it."""
    return f"{endpoint}-concurrency"


def wake_policy_request(spec: ScalingSpec) -> dict[str, Any]:
    """Return the PutScalingPolicy request of a step policy that adds an instance when its alarm is raised."""
    return {
        **scalable_target(spec.endpoint),
        "PolicyName": wake_name(spec.endpoint),
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": 300,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    }


def wake_alarm_request(spec: ScalingSpec) -> dict[str, Any]:
    """Return the PutMetricAlarm request of the alarm on requests that wait while there is no instance.

    Its action is the policy of :func:`wake_policy_request`, whose ARN is known once that was sent.
    """
    return {
        "AlarmName": wake_name(spec.endpoint),
        "AlarmDescription": f"Requests wait, and endpoint {spec.endpoint} has no instance",
        "Namespace": "AWS/SageMaker",
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": spec.endpoint}],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": ["the ARN that PutScalingPolicy returns"],
    }


def policy_request(spec: ScalingSpec) -> dict[str, Any]:
    """Return the PutScalingPolicy request: target tracking, on a ten-second metric where there is one."""
    return {
        **scalable_target(spec.endpoint),
        "PolicyName": policy_name(spec.endpoint),
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": spec.target,
            "ScaleInCooldown": spec.cooldown_s,
            "ScaleOutCooldown": 60,
            **_metric(spec),
        },
    }


def _variant(spec: EndpointSpec) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": spec.model_name, "InitialVariantWeight": 1.0}
    if spec.serverless:
        size = {"MemorySizeInMB": spec.serverless.memory_mb, "MaxConcurrency": spec.serverless.max_concurrency}
        kept = {} if spec.serverless.provisioned is None else {"ProvisionedConcurrency": spec.serverless.provisioned}
        return {**variant, "ServerlessConfig": {**size, **kept}}
    variant |= {
        "InstanceType": spec.instance_type,
        "InitialInstanceCount": spec.num_instances,
        "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_TIMEOUT_S,
    }
    if not spec.asynchronous:
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    if has_gpu(spec.instance_type):
        variant["InferenceAmiVersion"] = spec.ami or inference_ami(spec.instance_type)
    return variant


def _asynchronous(spec: EndpointSpec, place: str) -> dict[str, Any]:
    output: dict[str, Any] = {"S3OutputPath": place, "S3FailurePath": f"{place.rstrip('/')}/failed"}
    if spec.topic is not None:
        output["NotificationConfig"] = {"SuccessTopic": spec.topic, "ErrorTopic": spec.topic}
    config: dict[str, Any] = {"OutputConfig": output}
    if spec.max_invocations is not None:
        config["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": spec.max_invocations}
    return config


def _capture(capture: Capture) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": capture.percent,
        "DestinationS3Uri": capture.place,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # Bodies of other content types are recorded in base64.
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json", "application/jsonlines"]},
    }


def _deployment(update: Update) -> dict[str, Any]:
    config: dict[str, Any] = {}
    size = {"Type": "CAPACITY_PERCENT", "Value": update.percent}
    if update.strategy == "rolling":
        config["RollingUpdatePolicy"] = {"MaximumBatchSize": size, "WaitIntervalInSeconds": update.bake_s}
    else:
        canary = {"CanarySize": size} if update.strategy == "canary" else {}
        kind = "CANARY" if update.strategy == "canary" else "ALL_AT_ONCE"
        config["BlueGreenUpdatePolicy"] = {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": update.bake_s, **canary},
            "TerminationWaitInSeconds": _TERMINATION_WAIT_S,
        }
    if update.alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in update.alarms]}
    return config


def _metric(spec: ScalingSpec) -> dict[str, Any]:
    if not spec.asynchronous:
        name = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        return {"PredefinedMetricSpecification": {"PredefinedMetricType": name}}
    # The queue of an asynchronous endpoint, per instance; there is no predefined metric for it.
    return {
        "CustomizedMetricSpecification": {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": [{"Name": "EndpointName", "Value": spec.endpoint}],
            "Statistic": "Average",
        }
    }

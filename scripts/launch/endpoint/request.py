"""An artifact and an image → a CreateModel request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from launch.platform.resources import INFERENCE_AMI, has_gpu, tag_list
from launch.training.request import NO_NETWORK, Network


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """``data`` is a ``model.tar.gz``, or with ``multi_model`` the prefix under which there are many."""

    name: str
    image: str
    role: str
    data: str
    multi_model: bool = False
    network_isolation: bool = False
    network: Network = NO_NETWORK
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def model_request(spec: ModelSpec) -> dict[str, Any]:
    container: dict[str, Any] = {
        "Image": spec.image,
        "Mode": "MultiModel" if spec.multi_model else "SingleModel",
        "ModelDataUrl": spec.data,
    }
    if spec.environment:
        container["Environment"] = dict(spec.environment)
    return {
        "ModelName": spec.name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": spec.role,
        "EnableNetworkIsolation": spec.network_isolation,
        **spec.network.config(),
        "Tags": tag_list(spec.tags),
    }


VARIANT = "AllTraffic"
# As long as the platform gives a container: the largest models are read and laid out in less.
_STARTUP_S = 480


@dataclass(frozen=True, kw_only=True)
class Serverless:
    memory_mb: int = 4096
    max_concurrency: int = 5


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Requests and answers, kept in S3."""

    place: str
    percent: int = 100


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """``asynchronous`` is where the answers go; with it, requests name a photo in S3 and don't wait."""

    config_name: str
    model_name: str
    instance_type: str = "ml.m5.large"
    num_instances: int = 1
    serverless: Serverless | None = None
    asynchronous: str | None = None
    capture: Capture | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Update:
    """How traffic moves to a new fleet: at once, a canary first, or in batches; alarms roll it back."""

    manner: Literal["all-at-once", "canary", "rolling"] = "all-at-once"
    percent: int = 10
    bake_s: int = 300
    alarms: tuple[str, ...] = ()


def config_request(spec: EndpointSpec) -> dict[str, Any]:
    request: dict[str, Any] = {
        "EndpointConfigName": spec.config_name,
        "ProductionVariants": [_variant(spec)],
        "Tags": tag_list(spec.tags),
    }
    if spec.kms_key and not spec.serverless:
        request["KmsKeyId"] = spec.kms_key
    if spec.asynchronous:
        output = {"S3OutputPath": spec.asynchronous, "S3FailurePath": f"{spec.asynchronous.rstrip('/')}/failed"}
        request["AsyncInferenceConfig"] = {"OutputConfig": output}
    if spec.capture:
        request["DataCaptureConfig"] = _capture(spec.capture)
    return request


def create_request(endpoint: str, config: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"EndpointName": endpoint, "EndpointConfigName": config, "Tags": tag_list(tags)}


def update_request(endpoint: str, config: str, update: Update) -> dict[str, Any]:
    """An update keeps the number of instances to which the endpoint was scaled."""
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": config,
        "RetainAllVariantProperties": True,
        **({"DeploymentConfig": _deployment(update)} if update.manner != "all-at-once" or update.alarms else {}),
    }


def _variant(spec: EndpointSpec) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": spec.model_name, "InitialVariantWeight": 1.0}
    if spec.serverless:
        size = {"MemorySizeInMB": spec.serverless.memory_mb, "MaxConcurrency": spec.serverless.max_concurrency}
        return {**variant, "ServerlessConfig": size}
    variant |= {
        "InstanceType": spec.instance_type,
        "InitialInstanceCount": spec.num_instances,
        "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_S,
    }
    if not spec.asynchronous:
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    if has_gpu(spec.instance_type):
        variant["InferenceAmiVersion"] = INFERENCE_AMI
    return variant


def _capture(capture: Capture) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": capture.percent,
        "DestinationS3Uri": capture.place,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # All else is kept in base64.
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json", "application/jsonlines"]},
    }


def _deployment(update: Update) -> dict[str, Any]:
    config: dict[str, Any] = {}
    size = {"Type": "CAPACITY_PERCENT", "Value": update.percent}
    if update.manner == "rolling":
        config["RollingUpdatePolicy"] = {"MaximumBatchSize": size, "WaitIntervalInSeconds": update.bake_s}
    else:
        canary = {"CanarySize": size} if update.manner == "canary" else {}
        kind = "CANARY" if update.manner == "canary" else "ALL_AT_ONCE"
        config["BlueGreenUpdatePolicy"] = {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": update.bake_s, **canary},
            "TerminationWaitInSeconds": 60,
        }
    if update.alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in update.alarms]}
    return config


_DIMENSION = "sagemaker:variant:DesiredInstanceCount"


@dataclass(frozen=True, kw_only=True)
class ScalingSpec:
    """``target`` is the number of requests at a time for each instance, or of those in an asynchronous queue."""

    endpoint: str
    min_instances: int
    max_instances: int
    target: float = 4.0
    asynchronous: bool = False


def target_request(spec: ScalingSpec) -> dict[str, Any]:
    return {**_resource(spec), "MinCapacity": spec.min_instances, "MaxCapacity": spec.max_instances}


def policy_request(spec: ScalingSpec) -> dict[str, Any]:
    """Target tracking, on a metric that is told every ten seconds where there is one."""
    return {
        **_resource(spec),
        "PolicyName": f"{spec.endpoint}-concurrency",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": spec.target,
            "ScaleInCooldown": 300,
            "ScaleOutCooldown": 60,
            **_metric(spec),
        },
    }


def deregister_request(endpoint: str) -> dict[str, Any]:
    return _resource(ScalingSpec(endpoint=endpoint, min_instances=0, max_instances=0))


def _resource(spec: ScalingSpec) -> dict[str, Any]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{spec.endpoint}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }


def _metric(spec: ScalingSpec) -> dict[str, Any]:
    if not spec.asynchronous:
        name = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        return {"PredefinedMetricSpecification": {"PredefinedMetricType": name}}
    # What waits in an asynchronous endpoint's queue, by the instance.
    return {
        "CustomizedMetricSpecification": {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": [{"Name": "EndpointName", "Value": spec.endpoint}],
            "Statistic": "Average",
        }
    }

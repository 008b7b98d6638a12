"""How many instances an endpoint may have → RegisterScalableTarget and PutScalingPolicy requests."""

from dataclasses import dataclass
from typing import Any

from launch.requests.endpoint import VARIANT

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

"""What moto holds of endpoints, read and changed without the errors that a test scripts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from support.cloud_script import Cloud

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
OURS = [{"Key": "project", "Value": "image-classifier"}]


@dataclass
class Account:
    """An account with an endpoint under test, by clients that speak to moto itself.

    Attributes:
        name: of the endpoint under test; no other test uses it, since they share moto's server.
    """

    name: str
    cloud: Cloud
    sagemaker: Any
    scaling: Any
    cloudwatch: Any = None

    def add_endpoint(
        self, name: str, config: str, *, tags: Any = OURS, instance: str = "ml.m5.large", asynchronous: str = ""
    ) -> None:
        """Create an endpoint with a config and a model, both called ``config``."""
        container = {"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz"}
        self.sagemaker.create_model(ModelName=config, ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=OURS)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": config,
            "InstanceType": instance,
            "InitialInstanceCount": 2,
            "InitialVariantWeight": 1.0,
        }
        output = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": asynchronous}}} if asynchronous else {}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=config, ProductionVariants=[variant], Tags=OURS, **output
        )
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config, Tags=tags)

    def add_scaling(self, *policies: str) -> None:
        """Register the endpoint under test with policies."""
        target = self.target()
        self.scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=5)
        metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        tracking = {"TargetValue": 7.0, "PredefinedMetricSpecification": metric}
        for name in policies:
            self.scaling.put_scaling_policy(
                **target,
                PolicyName=name,
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration=tracking,
            )

    def target(self) -> dict[str, Any]:
        """Identify the registration of the endpoint under test."""
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.name}/variant/AllTraffic",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }

    def limits(self) -> tuple[int, int] | None:
        """Return the numbers of instances between which the endpoint under test scales."""
        resource = self.target()["ResourceId"]
        found = self.scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
        targets = found["ScalableTargets"]
        return (targets[0]["MinCapacity"], targets[0]["MaxCapacity"]) if targets else None

    def policies(self) -> set[str]:
        found = self.scaling.describe_scaling_policies(
            ServiceNamespace="sagemaker", ResourceId=self.target()["ResourceId"]
        )
        return {one["PolicyName"] for one in found["ScalingPolicies"]}

    def alarm(self) -> dict[str, Any] | None:
        """Return the alarm that starts the first instance of the endpoint under test."""
        found = self.cloudwatch.describe_alarms(AlarmNames=[f"{self.name}-wake"])["MetricAlarms"]
        return found[0] if found else None

    def has(self, kind: str, name: str) -> bool:
        key = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}[kind]
        try:
            getattr(self.sagemaker, f"describe_{kind}")(**{key: name})
        except ClientError:
            return False
        return True

    def has_all(self, name: str) -> bool:
        """Whether there are both a config and a model of a name."""
        return self.has("endpoint_config", name) and self.has("model", name)

    def created(self, operation: str = "EndpointConfig") -> str:
        """Return the name of the last config, or other resource, that a command has asked for."""
        return self.cloud.bodies(f"Create{operation}")[-1][f"{operation}Name"]

    def check_live(self, *, is_updated: bool = True) -> None:
        """Check that the configs and models of all endpoints exist, those of accepted updates included.

        Args:
            is_updated: whether the updates that were sent were accepted.
        """
        sent = self.cloud.bodies("UpdateEndpoint") if is_updated else ()
        check_live(self.sagemaker, {one["EndpointName"]: one["EndpointConfigName"] for one in sent})


def check_live(sagemaker: Any, updated: Mapping[str, str] | None = None) -> None:
    """Check that the configs and models of all endpoints exist.

    Args:
        sagemaker: a client of moto itself.
        updated: the configs of accepted updates, which moto lacks, by endpoint.
    """
    names = {one["EndpointName"] for one in sagemaker.list_endpoints(MaxResults=100)["Endpoints"]}
    configs = {sagemaker.describe_endpoint(EndpointName=one)["EndpointConfigName"] for one in names}
    configs |= {config for name, config in (updated or {}).items() if name in names}
    for config in configs:
        for variant in sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]:
            sagemaker.describe_model(ModelName=variant["ModelName"])

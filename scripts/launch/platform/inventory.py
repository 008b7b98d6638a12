"""What these commands made and what is there still, found by its tag; and how it is removed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import explained
from launch.endpoint.request import deregister_request
from launch.platform.clients import Platform
from launch.platform.prices import describe_hourly
from launch.platform.resources import is_ours

_RUNNING = {"StatusEquals": "InProgress"}


@dataclass(frozen=True)
class Found:
    """One resource. ``cost`` is empty where it costs nothing to keep; ``remove`` deletes or stops it."""

    kind: str
    name: str
    state: str
    cost: str
    remove: Callable[[], object]


def find(platform: Platform, *, local: bool, region: str | None = None) -> list[Found]:
    """Endpoints first, then configs, models and jobs: in the order in which they can be removed.

    Raises:
        CloudError: AWS refuses.
    """
    one = _Inventory(platform, local, region)
    with explained("SageMaker"):
        return [
            *one.endpoints(),
            *one.configs(),
            *one.models(),
            *one.tunings(),
            *one.trainings(),
            *one.transforms(),
        ]


@dataclass(frozen=True)
class _Inventory:
    platform: Platform
    local: bool
    region: str | None

    def endpoints(self) -> Iterator[Found]:
        for item in self._ours("list_endpoints", "Endpoints", "EndpointArn"):
            name = item["EndpointName"]
            cost = self._endpoint_cost(name)
            yield Found("endpoint", name, item["EndpointStatus"], cost, partial(self._delete, name))

    def configs(self) -> Iterator[Found]:
        for item in self._ours("list_endpoint_configs", "EndpointConfigs", "EndpointConfigArn"):
            name = item["EndpointConfigName"]
            remove = partial(self.platform.sagemaker.delete_endpoint_config, EndpointConfigName=name)
            yield Found("config", name, "", "", remove)

    def models(self) -> Iterator[Found]:
        for item in self._ours("list_models", "Models", "ModelArn"):
            name = item["ModelName"]
            yield Found("model", name, "", "", partial(self.platform.sagemaker.delete_model, ModelName=name))

    def trainings(self) -> Iterator[Found]:
        sagemaker = self.platform.sagemaker
        for item in self._ours("list_training_jobs", "TrainingJobSummaries", "TrainingJobArn", **_RUNNING):
            name = item["TrainingJobName"]
            described = sagemaker.describe_training_job(TrainingJobName=name)
            if "TuningJobArn" in described:
                continue
            cost = self._cost(described["ResourceConfig"])
            remove = partial(sagemaker.stop_training_job, TrainingJobName=name)
            yield Found("training", name, "InProgress", cost, remove)

    def tunings(self) -> Iterator[Found]:
        """With all their trainings. On this machine a tuning is a command that runs, and ends with it."""
        if self.local:
            return
        sagemaker = self.platform.sagemaker
        key, arn = "HyperParameterTuningJobSummaries", "HyperParameterTuningJobArn"
        for item in self._ours("list_hyper_parameter_tuning_jobs", key, arn, **_RUNNING):
            name = item["HyperParameterTuningJobName"]
            described = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            resources = described["TrainingJobDefinition"]["ResourceConfig"]
            limits = described["HyperParameterTuningJobConfig"]["ResourceLimits"]
            count = resources["InstanceCount"] * limits["MaxParallelTrainingJobs"]
            remove = partial(sagemaker.stop_hyper_parameter_tuning_job, HyperParameterTuningJobName=name)
            yield Found("tuning", name, "InProgress", self._cost({**resources, "InstanceCount": count}), remove)

    def transforms(self) -> Iterator[Found]:
        sagemaker = self.platform.sagemaker
        for item in self._ours("list_transform_jobs", "TransformJobSummaries", "TransformJobArn", **_RUNNING):
            name = item["TransformJobName"]
            cost = self._cost(sagemaker.describe_transform_job(TransformJobName=name)["TransformResources"])
            remove = partial(sagemaker.stop_transform_job, TransformJobName=name)
            yield Found("transform", name, "InProgress", cost, remove)

    def _ours(self, operation: str, key: str, arn: str, **request: str) -> Iterator[Mapping[str, Any]]:
        for item in _all_pages(getattr(self.platform.sagemaker, operation), key, request):
            if is_ours(_tags(self.platform.sagemaker, item[arn])):
                yield item

    def _endpoint_cost(self, name: str) -> str:
        described = self.platform.sagemaker.describe_endpoint(EndpointName=name)
        try:
            config = self.platform.sagemaker.describe_endpoint_config(
                EndpointConfigName=described["EndpointConfigName"]
            )
        except (ClientError, KeyError):
            return "unknown"
        variant = config["ProductionVariants"][0]
        if "ServerlessConfig" in variant:
            return "by the request"
        # What it was scaled to, rather than what it began with.
        now = (described.get("ProductionVariants") or [{}])[0].get("CurrentInstanceCount")
        count = now if now is not None else variant["InitialInstanceCount"]
        return self._cost({"InstanceType": variant["InstanceType"], "InstanceCount": count})

    def _cost(self, resources: Mapping[str, Any]) -> str:
        if self.local:
            return "this machine"
        count = resources.get("InstanceCount", 1)
        return f"{count} × {resources['InstanceType']}, {describe_hourly(resources['InstanceType'], count)}"

    def _delete(self, name: str) -> None:
        if not self.local:
            self._forget_scaling(name)
        self.platform.sagemaker.delete_endpoint(EndpointName=name)

    def _forget_scaling(self, name: str) -> None:
        scaling = client("application-autoscaling", region=self.region)
        try:
            scaling.deregister_scalable_target(**deregister_request(name))
        except ClientError as error:
            # Most endpoints have none.
            if "no scalable target" not in error.response.get("Error", {}).get("Message", "").lower():
                raise


def _all_pages(operation: Callable[..., Mapping[str, Any]], key: str, request: Mapping[str, str]) -> Iterator[Any]:
    token: dict[str, str] = {}
    while True:
        answer = operation(**request, **token)
        yield from answer[key]
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def _tags(sagemaker: Any, arn: str) -> list[dict[str, str]]:
    return sagemaker.list_tags(ResourceArn=arn)["Tags"]

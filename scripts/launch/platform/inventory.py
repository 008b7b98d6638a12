"""Inventory of the resources that these commands created, found by the project's tag, and their removal."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import translate_errors
from launch.platform.clients import Platform
from launch.platform.prices import describe_instances
from launch.platform.resources import has_project_tag, scalable_target

_RUNNING = {"StatusEquals": "InProgress"}


@dataclass(frozen=True)
class Resource:
    """One resource.

    Attributes:
        kind: endpoint, config, model, tuning, training or transform.
        state: its status, where it has one.
        cost: what it costs to keep, empty if nothing.
        remove: deletes it, or stops it if it is a job.
    """

    kind: str
    name: str
    state: str
    cost: str
    remove: Callable[[], object]


def find_resources(platform: Platform, *, local: bool, region: str | None = None) -> list[Resource]:
    """List the project's endpoints, configs, models and running jobs, in an order in which they can be removed.

    Raises:
        CloudError: AWS refused a request.
    """
    inventory = _Inventory(platform, local, region)
    with translate_errors("SageMaker"):
        return [
            *inventory.endpoints(),
            *inventory.configs(),
            *inventory.models(),
            *inventory.tunings(),
            *inventory.trainings(),
            *inventory.transforms(),
        ]


@dataclass(frozen=True)
class _Inventory:
    platform: Platform
    local: bool
    region: str | None

    def endpoints(self) -> Iterator[Resource]:
        for item in self._tagged("list_endpoints", "Endpoints", "EndpointArn"):
            name = item["EndpointName"]
            cost = self._endpoint_cost(name)
            yield Resource("endpoint", name, item["EndpointStatus"], cost, partial(self._delete_endpoint, name))

    def configs(self) -> Iterator[Resource]:
        for item in self._tagged("list_endpoint_configs", "EndpointConfigs", "EndpointConfigArn"):
            name = item["EndpointConfigName"]
            remove = partial(self.platform.sagemaker.delete_endpoint_config, EndpointConfigName=name)
            yield Resource("config", name, "", "", remove)

    def models(self) -> Iterator[Resource]:
        for item in self._tagged("list_models", "Models", "ModelArn"):
            name = item["ModelName"]
            yield Resource("model", name, "", "", partial(self.platform.sagemaker.delete_model, ModelName=name))

    def trainings(self) -> Iterator[Resource]:
        """List the running training jobs, except those of a tuning job, which stops them itself."""
        sagemaker = self.platform.sagemaker
        for item in self._tagged("list_training_jobs", "TrainingJobSummaries", "TrainingJobArn", **_RUNNING):
            name = item["TrainingJobName"]
            described = sagemaker.describe_training_job(TrainingJobName=name)
            if "TuningJobArn" in described:
                continue
            cost = self._cost(described["ResourceConfig"])
            remove = partial(sagemaker.stop_training_job, TrainingJobName=name)
            yield Resource("training", name, "InProgress", cost, remove)

    def tunings(self) -> Iterator[Resource]:
        """List the running tuning jobs; a local one is a running command, which is not listed."""
        if self.local:
            return
        sagemaker = self.platform.sagemaker
        key, arn = "HyperParameterTuningJobSummaries", "HyperParameterTuningJobArn"
        for item in self._tagged("list_hyper_parameter_tuning_jobs", key, arn, **_RUNNING):
            name = item["HyperParameterTuningJobName"]
            described = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            resources = described["TrainingJobDefinition"]["ResourceConfig"]
            limits = described["HyperParameterTuningJobConfig"]["ResourceLimits"]
            count = resources["InstanceCount"] * limits["MaxParallelTrainingJobs"]
            remove = partial(sagemaker.stop_hyper_parameter_tuning_job, HyperParameterTuningJobName=name)
            yield Resource("tuning", name, "InProgress", self._cost({**resources, "InstanceCount": count}), remove)

    def transforms(self) -> Iterator[Resource]:
        sagemaker = self.platform.sagemaker
        for item in self._tagged("list_transform_jobs", "TransformJobSummaries", "TransformJobArn", **_RUNNING):
            name = item["TransformJobName"]
            cost = self._cost(sagemaker.describe_transform_job(TransformJobName=name)["TransformResources"])
            remove = partial(sagemaker.stop_transform_job, TransformJobName=name)
            yield Resource("transform", name, "InProgress", cost, remove)

    def _tagged(self, operation: str, key: str, arn: str, **request: str) -> Iterator[Mapping[str, Any]]:
        sagemaker = self.platform.sagemaker
        for item in _all_pages(getattr(sagemaker, operation), key, request):
            if has_project_tag(sagemaker.list_tags(ResourceArn=item[arn])["Tags"]):
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
            return "per request"
        # The number that autoscaling has chosen, rather than the initial one.
        current = (described.get("ProductionVariants") or [{}])[0].get("CurrentInstanceCount")
        count = current if current is not None else variant["InitialInstanceCount"]
        return self._cost({"InstanceType": variant["InstanceType"], "InstanceCount": count})

    def _cost(self, resources: Mapping[str, Any]) -> str:
        if self.local:
            return "this machine"
        return describe_instances(resources["InstanceType"], resources.get("InstanceCount", 1))

    def _delete_endpoint(self, name: str) -> None:
        if not self.local:
            self._deregister_scaling(name)
        self.platform.sagemaker.delete_endpoint(EndpointName=name)

    def _deregister_scaling(self, name: str) -> None:
        scaling = client("application-autoscaling", region=self.region)
        try:
            scaling.deregister_scalable_target(**scalable_target(name))
        except ClientError as error:
            # Most endpoints do not scale.
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

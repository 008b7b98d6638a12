"""Inventory of the resources that these commands created, found by the project's tag, and their removal.

What a live endpoint or a running job references is not removed (:mod:`launch.platform.references`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aws.errors import CloudError, translate_errors
from launch.platform.autoscaling import Autoscaling, wake_name
from launch.platform.clients import Platform
from launch.platform.models import is_content_name
from launch.platform.price_list import Use
from launch.platform.prices import find_rate
from launch.platform.references import References
from launch.platform.resources import all_pages, describe, scalable_target
from launch.platform.tagged import TaggedResources

_RUNNING = {"StatusEquals": "InProgress"}
_KEPT = {"WarmPoolStatusEquals": "Available"}


@dataclass(frozen=True)
class Resource:
    """One resource.

    Attributes:
        kind: endpoint, config, model, tuning, training, transform or pool.
        state: its status, where it has one; InProgress is a running job's.
        cost: what it costs to keep, empty if nothing.
        remove: deletes it, or stops it if it is a job.
        clean_up: removes what remains of it afterwards.
    """

    kind: str
    name: str
    state: str
    cost: str
    remove: Callable[[], object]
    clean_up: Callable[[], object] = lambda: None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def select(
    resources: Sequence[Resource], references: References, pattern: str | None
) -> tuple[list[Resource], dict[str, str]]:
    """Choose the resources that a name means.

    Args:
        resources: all resources of the project.
        references: of the account's endpoints and running jobs.
        pattern: a name, or with ``*`` at its end the beginning of names; None means all resources.

    Returns:
        The resources of that name, the configs and models that the endpoints among them reference, and those of the
        name's earlier deployments; and those of all these that are kept, such as ``model dogs-1``, with who is not
        chosen and references them.
    """
    named = [one for one in resources if pattern is None or _matches(one, pattern)]
    users = {str(one) for one in named}
    used = {each for one in named if one.kind == "endpoint" for each in references.by_user.get(str(one), ())}
    names = {(one.kind, one.name) for one in named} | used
    chosen = [one for one in resources if (one.kind, one.name) in names]
    others = [references.user_of(one.kind, one.name, besides=users) for one in chosen]
    kept = {str(one): user for one, user in zip(chosen, others, strict=True) if user}
    return [one for one, user in zip(chosen, others, strict=True) if not user], kept


def _matches(resource: Resource, pattern: str) -> bool:
    if pattern.endswith("*"):
        return resource.name.startswith(pattern[:-1])
    is_deployed = resource.kind in ("config", "model") and is_content_name(resource.name, pattern)
    return resource.name == pattern or is_deployed


def find_resources(
    platform: Platform,
    *,
    local: bool,
    region: str | None = None,
    owner: str | None = None,
    ended_jobs: bool = False,
) -> list[Resource]:
    """List the project's endpoints, configs, models, running jobs and warm pools, as they can be removed in turn.

    Args:
        owner: only those with this tag ``owner``; None for all.
        ended_jobs: list local jobs that have ended as well, with the disk space that they take.

    Raises:
        CloudError: AWS refused a request.
    """
    inventory = _Inventory(platform, local, region, TaggedResources(platform.sagemaker, platform.region, owner))
    with translate_errors("SageMaker"):
        return [
            *inventory.endpoints(),
            *inventory.configs(),
            *inventory.models(),
            *inventory.tunings(),
            *inventory.trainings(),
            *inventory.transforms(),
            *inventory.warm_pools(),
            *(inventory.ended_jobs() if ended_jobs else ()),
        ]


@dataclass(frozen=True)
class _Inventory:
    platform: Platform
    local: bool
    region: str | None
    ours: TaggedResources

    def endpoints(self) -> Iterator[Resource]:
        for item in self._tagged("list_endpoints", "Endpoints", "EndpointArn"):
            name = item["EndpointName"]
            described = describe(self.platform.sagemaker, "endpoint", name) or {}
            config = describe(self.platform.sagemaker, "config", described.get("EndpointConfigName", "none"))
            cost = self._endpoint_cost(described, config)
            remove = partial(self.platform.sagemaker.delete_endpoint, EndpointName=name)
            is_async = "AsyncInferenceConfig" in (config or described)
            clean_up = partial(self._remove_scaling, name, has_alarm=is_async)
            yield Resource("endpoint", name, item["EndpointStatus"], cost, remove, clean_up)

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
            cost = self._cost(Use.TRAINING, described["ResourceConfig"])
            remove = partial(sagemaker.stop_training_job, TrainingJobName=name)
            yield Resource("training", name, "InProgress", cost, remove)

    def tunings(self) -> Iterator[Resource]:
        sagemaker = self.platform.sagemaker
        key, arn = "HyperParameterTuningJobSummaries", "HyperParameterTuningJobArn"
        for item in self._tagged("list_hyper_parameter_tuning_jobs", key, arn, **_RUNNING):
            name = item["HyperParameterTuningJobName"]
            described = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            resources = described["TrainingJobDefinition"]["ResourceConfig"]
            limits = described["HyperParameterTuningJobConfig"]["ResourceLimits"]
            count = resources["InstanceCount"] * limits["MaxParallelTrainingJobs"]
            remove = partial(sagemaker.stop_hyper_parameter_tuning_job, HyperParameterTuningJobName=name)
            cost = self._cost(Use.TRAINING, {**resources, "InstanceCount": count})
            yield Resource("tuning", name, "InProgress", cost, remove)

    def transforms(self) -> Iterator[Resource]:
        sagemaker = self.platform.sagemaker
        for item in self._tagged("list_transform_jobs", "TransformJobSummaries", "TransformJobArn", **_RUNNING):
            name = item["TransformJobName"]
            described = sagemaker.describe_transform_job(TransformJobName=name)
            cost = self._cost(Use.TRANSFORM, described["TransformResources"])
            remove = partial(sagemaker.stop_transform_job, TransformJobName=name)
            yield Resource("transform", name, "InProgress", cost, remove)

    def warm_pools(self) -> Iterator[Resource]:
        """List the instances that are kept after a training job, which cost as much as while it ran."""
        if self.local:
            return
        sagemaker = self.platform.sagemaker
        for item in self._tagged("list_training_jobs", "TrainingJobSummaries", "TrainingJobArn", **_KEPT):
            name = item["TrainingJobName"]
            described = sagemaker.describe_training_job(TrainingJobName=name)
            state = described.get("WarmPoolStatus", {}).get("Status")
            if state != _KEPT["WarmPoolStatusEquals"]:
                continue
            end = {"KeepAlivePeriodInSeconds": 0}
            remove = partial(sagemaker.update_training_job, TrainingJobName=name, ResourceConfig=end)
            yield Resource("pool", name, state, self._cost(Use.TRAINING, described["ResourceConfig"]), remove)

    def ended_jobs(self) -> Iterator[Resource]:
        """List the local jobs that have ended; they cost nothing but disk space."""
        for job in self.platform.sagemaker.jobs_on_disk():
            if job.has_ended and self.ours.has(job.arn, None):
                size = f"{job.num_bytes() / 1e6:,.1f} MB on disk"
                yield Resource(job.kind, job.name, job.status, size, job.delete)

    def _tagged(self, operation: str, key: str, arn: str, **request: str) -> Iterator[Mapping[str, Any]]:
        sagemaker = self.platform.sagemaker
        for item in all_pages(getattr(sagemaker, operation), key, **request):
            times = [item[key] for key in ("CreationTime", "LastModifiedTime") if key in item]
            if self.ours.has(item[arn], max(times, default=None)):
                yield item

    def _endpoint_cost(self, described: Mapping[str, Any], config: Mapping[str, Any] | None) -> str:
        if config is None:
            return "unknown"
        variant = config["ProductionVariants"][0]
        if "ServerlessConfig" in variant:
            provisioned = variant["ServerlessConfig"].get("ProvisionedConcurrency")
            return f"per request, and day and night for {provisioned} provisioned" if provisioned else "per request"
        # The number that autoscaling has chosen, rather than the initial one.
        current = (described.get("ProductionVariants") or [{}])[0].get("CurrentInstanceCount")
        count = current if current is not None else variant["InitialInstanceCount"]
        use = Use.ASYNCHRONOUS if "AsyncInferenceConfig" in config else Use.HOSTING
        return self._cost(use, {"InstanceType": variant["InstanceType"], "InstanceCount": count})

    def _cost(self, use: Use, resources: Mapping[str, Any]) -> str:
        if self.local:
            return "this machine"
        return str(find_rate(use, resources["InstanceType"], resources.get("InstanceCount", 1), self.platform.region))

    def _remove_scaling(self, name: str, *, has_alarm: bool) -> None:
        """Deregister an endpoint, and delete the alarm that an asynchronous one may have; each is tried.

        Raises:
            CloudError: AWS refused one of them; the message has the command that removes it.
        """
        if self.local:
            return
        autoscaling, target = Autoscaling(name, self.region), scalable_target(name)
        deregister = (
            "aws application-autoscaling deregister-scalable-target "
            f"--service-namespace {target['ServiceNamespace']} --resource-id {target['ResourceId']} "
            f"--scalable-dimension {target['ScalableDimension']}"
        )
        steps = [(autoscaling.deregister, "its registration is left, at no cost", deregister)]
        if has_alarm:
            delete = f"aws cloudwatch delete-alarms --alarm-names {wake_name(name)}"
            steps.append((autoscaling.delete_alarm, "its alarm is left, if it has one, at $0.10 a month", delete))
        left: list[str] = []
        for step, consequence, command in steps:
            try:
                step()
            except CloudError as error:
                left.append(f"{error}; {consequence}; remove it with {command}")
        if left:
            raise CloudError("; ".join(left))

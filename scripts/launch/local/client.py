# ruff: noqa: N803 (the API's parameter names)
"""Local counterparts of boto3's ``sagemaker``, ``sagemaker-runtime`` and ``logs`` clients."""

from pathlib import Path
from typing import Any

from launch.local.disk import JobOnDisk
from launch.local.endpoints import Endpoints, invoke, invoke_async
from launch.local.errors import api_error, invalid
from launch.local.processes import LOOPBACK
from launch.local.records import Record, Records, check_name, select_fields
from launch.local.training import TrainingJobs
from launch.local.transform import TransformJobs
from launch.local.tuning import TuningJobs

DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "local_test" / "sagemaker"
GRACE_S = 120.0  # as on the platform
_LOG_FOLDERS = {
    "/aws/sagemaker/TrainingJobs": "training-jobs",
    "/aws/sagemaker/TransformJobs": "transform-jobs",
    "/aws/sagemaker/Endpoints": "endpoints",
}


class LocalClient:
    """Local counterpart of boto3's ``sagemaker`` and ``sagemaker-runtime`` clients, with the same calls.

    Requests are validated by botocore's model of the service, and errors are botocore's. Differences from the platform:
    URIs may be ``file://``; the image ``local`` is this Python environment, without a container engine; nothing is
    billed.

    Args:
        folder: where all state is kept; clients of the same folder see the same jobs and endpoints.
        grace_s: seconds between SIGTERM and SIGKILL when a job is stopped.
        bind: the address on which servers of endpoints listen; ``0.0.0.0`` means all interfaces.
        interrupt_after_s: seconds after which a new training job is interrupted once, as on Spot capacity, and starts
            again with its checkpoints; 0 means never.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        grace_s: float = GRACE_S,
        bind: str = LOOPBACK,
        interrupt_after_s: float = 0,
    ) -> None:
        self.folder = folder.resolve()
        self._training = TrainingJobs(self.folder, grace_s, interrupt_after_s)
        self._tuning = TuningJobs(self.folder, self._training, grace_s)
        self._endpoints = Endpoints(self.folder, bind)
        self._transforms = TransformJobs(self.folder, self._endpoints.models)

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        """Start a supervisor process that runs the job; its program is ``classifier.train`` or the image's."""
        return self._training.create(request)

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        """Return a job's record; a job whose supervisor was killed is Failed."""
        return self._training.describe(TrainingJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        """Ask the supervisor to stop a job, which keeps the model it has; returns at once."""
        self._training.stop(TrainingJobName)
        return {}

    def list_training_jobs(
        self,
        *,
        NameContains: str = "",
        StatusEquals: str | None = None,
        MaxResults: int | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """List jobs, newest first, by a part of the name and by status; other filters are ignored."""
        found = _select(self._training.summaries(), "TrainingJob", NameContains, StatusEquals)
        return {"TrainingJobSummaries": found[:MaxResults]}

    def create_trial(self, tuning_job: str, **request: Any) -> dict[str, Any]:
        """Start a training job that belongs to a tuning job; on the platform only the tuner itself does this."""
        answer = self._training.create(request)
        self._training.records.update(request["TrainingJobName"], TuningJobArn=self._tuning.records.arn(tuning_job))
        return answer

    def create_hyper_parameter_tuning_job(self, **request: Any) -> dict[str, Any]:
        """Start a supervisor process that samples trials and runs them as training jobs, or continue an ended job."""
        return self._tuning.create(request)

    def describe_hyper_parameter_tuning_job(self, *, HyperParameterTuningJobName: str) -> dict[str, Any]:
        """Return a job's record; a job whose supervisor was killed is Failed."""
        return self._tuning.describe(HyperParameterTuningJobName)

    def list_training_jobs_for_hyper_parameter_tuning_job(
        self,
        *,
        HyperParameterTuningJobName: str,
        SortBy: str = "Name",
        SortOrder: str = "Ascending",
        StatusEquals: str | None = None,
        MaxResults: int | None = None,
    ) -> dict[str, Any]:
        """List a job's trials, with the objective after each epoch in ``ObjectiveHistory``, which AWS does not have."""
        trials = self._tuning.trials(HyperParameterTuningJobName, SortBy, SortOrder)
        return {"TrainingJobSummaries": _select(trials, "TrainingJob", "", StatusEquals)[:MaxResults]}

    def stop_hyper_parameter_tuning_job(self, *, HyperParameterTuningJobName: str) -> dict[str, Any]:
        """Ask the supervisor to stop a job and its running trials; returns at once."""
        self._tuning.stop(HyperParameterTuningJobName)
        return {}

    def list_hyper_parameter_tuning_jobs(
        self, *, NameContains: str = "", StatusEquals: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """List jobs, newest first, by a part of the name and by status; other filters are ignored."""
        found = _select(self._tuning.summaries(), "HyperParameterTuningJob", NameContains, StatusEquals)
        return {"HyperParameterTuningJobSummaries": found}

    def create_model(self, **request: Any) -> dict[str, Any]:
        """Record a model; its archive is read when a server starts."""
        return self._endpoints.create_model(request)

    def describe_model(self, *, ModelName: str) -> dict[str, Any]:
        """Return the request of a model with its ARN and creation time."""
        return self._endpoints.models.read(ModelName)

    def delete_model(self, *, ModelName: str) -> dict[str, Any]:
        """Delete a model; running endpoints keep serving it."""
        self._endpoints.models.delete(ModelName)
        return {}

    def list_models(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        """List models, newest first, by a part of the name."""
        return {"Models": _summaries(self._endpoints.models, ("ModelName", "ModelArn"), NameContains)}

    def create_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Record an endpoint config of one production variant."""
        return self._endpoints.create_config(request)

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        """Return the request of an endpoint config with its ARN and creation time."""
        return self._endpoints.configs.read(EndpointConfigName)

    def delete_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        """Delete an endpoint config that no endpoint uses."""
        self._endpoints.delete_config(EndpointConfigName)
        return {}

    def list_endpoint_configs(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        """List endpoint configs, newest first, by a part of the name."""
        fields = ("EndpointConfigName", "EndpointConfigArn")
        return {"EndpointConfigs": _summaries(self._endpoints.configs, fields, NameContains)}

    def create_endpoint(self, **request: Any) -> dict[str, Any]:
        """Start an endpoint's server; the endpoint is Creating until the server is ready."""
        return self._endpoints.create(request)

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        """Return an endpoint's record, after looking at its servers."""
        record = self._endpoints.describe(EndpointName)
        config = self._endpoints.config_of(EndpointName).get("AsyncInferenceConfig")
        return {**record, **({"AsyncInferenceConfig": config} if config else {})}

    def update_endpoint(self, **request: Any) -> dict[str, Any]:
        """Start a server for another config, which replaces the present one once it is ready."""
        return self._endpoints.update(request)

    def delete_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        """Stop an endpoint's servers and delete it with its logs."""
        self._endpoints.delete(EndpointName)
        return {}

    def list_endpoints(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        """List endpoints, newest first, by a part of the name, after looking at their servers."""
        for name in self._endpoints.records.names():
            self._endpoints.describe(name)
        fields = ("EndpointName", "EndpointArn", "EndpointStatus", "LastModifiedTime")
        return {"Endpoints": _summaries(self._endpoints.records, fields, NameContains)}

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        """Send a request to an endpoint's server; ``TargetModel`` is loaded first if it has to be."""
        return invoke(self._endpoints, request)

    def invoke_endpoint_async(self, **request: Any) -> dict[str, Any]:
        """Answer an asynchronous request before returning; its files are on this machine."""
        return invoke_async(self._endpoints, request)

    def create_transform_job(self, **request: Any) -> dict[str, Any]:
        """Start a supervisor process that sends each file of the input to a server of its own."""
        return self._transforms.create(request)

    def describe_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:
        """Return a job's record; a job whose supervisor was killed is Failed."""
        return self._transforms.describe(TransformJobName)

    def stop_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:
        """Ask the supervisor to stop a job after the files that are being transformed."""
        self._transforms.stop(TransformJobName)
        return {}

    def list_transform_jobs(
        self, *, NameContains: str = "", StatusEquals: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """List jobs, newest first, by a part of the name and by status."""
        return {
            "TransformJobSummaries": _select(self._transforms.summaries(), "TransformJob", NameContains, StatusEquals)
        }

    def jobs_on_disk(self) -> list[JobOnDisk]:
        """Return all jobs with the disk space that they take until they are deleted; AWS has nothing like it."""
        models = self._endpoints.models
        return [JobOnDisk(self.folder, models, one, name) for one in self._job_records() for name in one.names()]

    def _job_records(self) -> tuple[Records, ...]:
        return (self._tuning.records, self._training.records, self._transforms.records)

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        """Return a resource's tags."""
        records, name = self._tagged(ResourceArn)
        return {"Tags": records.read(name).get("Tags", [])}

    def add_tags(self, *, ResourceArn: str, Tags: list[dict[str, str]]) -> dict[str, Any]:
        """Add tags to a resource; one of the same key is replaced."""
        records, name = self._tagged(ResourceArn)
        with records.edit(name) as record:
            tags = {one["Key"]: one for one in [*record.get("Tags", []), *Tags]}
            record["Tags"] = list(tags.values())
        return {"Tags": record["Tags"]}

    def _tagged(self, arn: str) -> tuple[Records, str]:
        """Return the records that a resource is one of, and its name."""
        kind, _, name = arn.rpartition(":")[2].partition("/")
        endpoints = self._endpoints
        records = {
            one.kind: one for one in (*self._job_records(), endpoints.models, endpoints.configs, endpoints.records)
        }
        if kind not in records:
            raise invalid(f"{arn}: the local client has no such resource")
        return records[kind], name


def _select(summaries: list[Record], kind: str, part: str, status: str | None) -> list[Record]:
    """Filter the summaries of jobs by a part of the name and by status."""
    found = [one for one in summaries if part in one[f"{kind}Name"]]
    return [one for one in found if status in (None, one[f"{kind}Status"])]


def _summaries(records: Records, fields: tuple[str, ...], part: str) -> list[Record]:
    """Return the list entries of the resources whose names contain ``part``."""
    return [select_fields(records.read(name), (*fields, "CreationTime")) for name in records.names() if part in name]


class LocalLogs:
    """Local counterpart of boto3's ``logs`` client: the log files of a :class:`LocalClient`'s folder.

    Log groups and streams are named as on the platform, ``/aws/sagemaker/TrainingJobs`` and ``JOB/algo-1``.

    Args:
        folder: the local client's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder

    def describe_log_streams(
        self,
        *,
        logGroupName: str,
        logStreamNamePrefix: str = "",
        **_: Any,
    ) -> dict[str, Any]:
        """List a job's or an endpoint's log files as streams."""
        folder, name = self._locate(logGroupName)
        name = name or check_name(logStreamNamePrefix.partition("/")[0])
        files = sorted((folder / name / "logs").glob("*.log"))
        return {"logStreams": [{"logStreamName": f"{name}/{path.stem}"} for path in files]}

    def get_log_events(
        self,
        *,
        logGroupName: str,
        logStreamName: str,
        nextToken: str = "0",
        **_: Any,
    ) -> dict[str, Any]:
        """Return the whole lines of a log from ``nextToken``, a byte offset, on."""
        folder, _name = self._locate(logGroupName)
        name, _slash, stem = logStreamName.partition("/")
        start = int(nextToken)
        try:
            with (folder / check_name(name) / "logs" / f"{check_name(stem)}.log").open("rb") as log:
                log.seek(start)
                data = log.read()
        except FileNotFoundError:
            raise api_error("ResourceNotFoundException", f"no log stream {logStreamName}", "GetLogEvents") from None
        # Whole lines only: the rest of the last one comes with the next call.
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.decode(errors="replace").splitlines()
        token = str(start + len(whole))
        return {"events": [{"message": line, "timestamp": 0} for line in lines], "nextForwardToken": token}

    def _locate(self, group: str) -> tuple[Path, str]:
        """Return a log group's folder, and the resource's name if the group contains it."""
        for prefix, folder in _LOG_FOLDERS.items():
            if group == prefix or group.startswith(f"{prefix}/"):
                name = group[len(prefix) + 1 :]
                return self._root / folder, check_name(name) if name else ""
        raise api_error("ResourceNotFoundException", f"no log group {group}", "DescribeLogStreams")

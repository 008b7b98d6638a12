# ruff: noqa: N803 (the API's own names)
# ruff: noqa: N803 (the API's own names)
"""The client: the same calls with the same requests as boto3's, answered by this machine."""

from pathlib import Path
from typing import Any

from launch.local.endpoints import Endpoints, invoke, invoke_async
from launch.local.errors import invalid, refuse
from launch.local.records import Records
from launch.local.training import TrainingJobs
from launch.local.transform import TransformJobs

DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "local_test" / "sagemaker"
GRACE_S = 120.0


class LocalClient:
    """Answers as boto3's ``sagemaker`` client does, and ``sagemaker-runtime``'s.

    Requests are checked by botocore's own model of the service, and what is refused is refused with botocore's errors.
    Where it differs from the platform: addresses may be ``file://``; an image called ``local`` is the program itself,
    with no engine; nothing is billed.

    Args:
        folder: where everything is kept; whoever gives the same one sees the same jobs and endpoints.
        grace_s: what a job has between SIGTERM and SIGKILL.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER, *, grace_s: float = GRACE_S) -> None:
        self.folder = folder.resolve()
        self._training = TrainingJobs(self.folder, grace_s)
        self._endpoints = Endpoints(self.folder)
        self._transforms = TransformJobs(self.folder, self._endpoints.models)

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        return self._training.create(request)

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        return self._training.describe(TrainingJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        self._training.stop(TrainingJobName)
        return {}

    def delete_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        self._training.delete(TrainingJobName)
        return {}

    def list_training_jobs(
        self,
        *,
        NameContains: str = "",
        StatusEquals: str | None = None,
        MaxResults: int | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        found = [one for one in self._training.summaries() if NameContains in one["TrainingJobName"]]
        found = [one for one in found if StatusEquals in (None, one["TrainingJobStatus"])]
        return {"TrainingJobSummaries": found[:MaxResults]}

    def create_model(self, **request: Any) -> dict[str, Any]:
        return self._endpoints.create_model(request)

    def describe_model(self, *, ModelName: str) -> dict[str, Any]:
        return self._endpoints.models.read(ModelName)

    def delete_model(self, *, ModelName: str) -> dict[str, Any]:
        self._endpoints.delete_model(ModelName)
        return {}

    def list_models(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        return {"Models": _summaries(self._endpoints.models, ("ModelName", "ModelArn"), NameContains)}

    def create_endpoint_config(self, **request: Any) -> dict[str, Any]:
        return self._endpoints.create_config(request)

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        return self._endpoints.configs.read(EndpointConfigName)

    def delete_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        self._endpoints.delete_config(EndpointConfigName)
        return {}

    def list_endpoint_configs(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        fields = ("EndpointConfigName", "EndpointConfigArn")
        return {"EndpointConfigs": _summaries(self._endpoints.configs, fields, NameContains)}

    def create_endpoint(self, **request: Any) -> dict[str, Any]:
        return self._endpoints.create(request)

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        return self._endpoints.describe(EndpointName)

    def update_endpoint(self, **request: Any) -> dict[str, Any]:
        return self._endpoints.update(request)

    def delete_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        self._endpoints.delete(EndpointName)
        return {}

    def list_endpoints(self, *, NameContains: str = "", **_: Any) -> dict[str, Any]:
        for name in self._endpoints.records.names():
            self._endpoints.describe(name)
        fields = ("EndpointName", "EndpointArn", "EndpointStatus", "LastModifiedTime")
        return {"Endpoints": _summaries(self._endpoints.records, fields, NameContains)}

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        return invoke(self._endpoints, request)

    def invoke_endpoint_async(self, **request: Any) -> dict[str, Any]:
        return invoke_async(self._endpoints, request)

    def create_transform_job(self, **request: Any) -> dict[str, Any]:
        return self._transforms.create(request)

    def describe_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:
        return self._transforms.describe(TransformJobName)

    def stop_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:
        self._transforms.stop(TransformJobName)
        return {}

    def list_transform_jobs(
        self, *, NameContains: str = "", StatusEquals: str | None = None, **_: Any
    ) -> dict[str, Any]:
        found = [one for one in self._transforms.summaries() if NameContains in one["TransformJobName"]]
        found = [one for one in found if StatusEquals in (None, one["TransformJobStatus"])]
        return {"TransformJobSummaries": found}

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        kind, _, name = ResourceArn.rpartition(":")[2].partition("/")
        records = {one.kind: one for one in self._kinds()}
        if kind not in records:
            raise invalid(f"{ResourceArn}: on this machine there is no such resource")
        return {"Tags": records[kind].read(name).get("Tags", [])}

    def _kinds(self) -> tuple[Records, ...]:
        one = self._endpoints
        return self._training.records, self._transforms.records, one.models, one.configs, one.records


def _summaries(records: Records, fields: tuple[str, ...], part: str) -> list[dict[str, Any]]:
    found = [records.read(name) for name in records.names() if part in name]
    return [{key: one[key] for key in (*fields, "CreationTime") if key in one} for one in found]


_FOLDERS = {
    "/aws/sagemaker/TrainingJobs": "training-jobs",
    "/aws/sagemaker/TransformJobs": "transform-jobs",
    "/aws/sagemaker/Endpoints": "endpoints",
}


class LocalLogs:
    """``folder`` as the :class:`~launch.local.client.LocalClient` has it."""

    def __init__(self, folder: Path) -> None:
        self._root = folder

    def describe_log_streams(
        self,
        *,
        logGroupName: str,
        logStreamNamePrefix: str = "",
        **_: Any,
    ) -> dict[str, Any]:
        place, name = self._place(logGroupName)
        name = name or logStreamNamePrefix.partition("/")[0]
        files = sorted((place / name / "logs").glob("*.log"))
        return {"logStreams": [{"logStreamName": f"{name}/{path.stem}"} for path in files]}

    def get_log_events(
        self,
        *,
        logGroupName: str,
        logStreamName: str,
        nextToken: str = "0",
        **_: Any,
    ) -> dict[str, Any]:
        place, _name = self._place(logGroupName)
        name, _slash, stem = logStreamName.partition("/")
        start = int(nextToken)
        try:
            with (place / name / "logs" / f"{stem}.log").open("rb") as log:
                log.seek(start)
                data = log.read()
        except FileNotFoundError:
            raise refuse("ResourceNotFoundException", f"no log stream {logStreamName}", "GetLogEvents") from None
        # Only whole lines: the rest of the last one comes with the next call.
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.decode(errors="replace").splitlines()
        token = str(start + len(whole))
        return {"events": [{"message": line, "timestamp": 0} for line in lines], "nextForwardToken": token}

    def _place(self, group: str) -> tuple[Path, str]:
        """The folder of a log group, and the resource's name where the group has it."""
        for prefix, folder in _FOLDERS.items():
            if group == prefix or group.startswith(f"{prefix}/"):
                return self._root / folder, group[len(prefix) + 1 :]
        raise refuse("ResourceNotFoundException", f"no log group {group}", "DescribeLogStreams")

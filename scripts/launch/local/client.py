"""The client: the same calls with the same requests as boto3's, answered by this machine."""

from pathlib import Path
from typing import Any

from launch.local.training import TrainingJobs

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

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        return self._training.create(request)

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
        return self._training.describe(TrainingJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
        self._training.stop(TrainingJobName)
        return {}

    def delete_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
        self._training.delete(TrainingJobName)
        return {}

    def list_training_jobs(
        self,
        *,
        NameContains: str = "",  # noqa: N803
        StatusEquals: str | None = None,  # noqa: N803
        MaxResults: int | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        found = [one for one in self._training.summaries() if NameContains in one["TrainingJobName"]]
        found = [one for one in found if StatusEquals in (None, one["TrainingJobStatus"])]
        return {"TrainingJobSummaries": found[:MaxResults]}

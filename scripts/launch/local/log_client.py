# ruff: noqa: N803 (the API's own names)
"""The logs of this machine's jobs and endpoints, as boto3's ``logs`` client tells those of the platform."""

from pathlib import Path
from typing import Any

from launch.local.refusals import refuse

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

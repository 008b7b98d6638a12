"""A job's log in CloudWatch (or the local client's), as it grows."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"


class LogTail:
    """The streams of one job or endpoint.

    Reading the log never fails a command: where it can't be read, there are no lines.

    Args:
        client: boto3's ``logs`` client, or one that answers alike.
        group: the log group.
        prefix: with what the streams' names begin.
    """

    def __init__(self, client: Any, group: str, prefix: str = "") -> None:
        self._client, self._group, self._prefix = client, group, prefix
        self._tokens: dict[str, str] = {}

    def new_lines(self) -> list[str]:
        """What was logged since the last call; several hosts' lines begin with the host."""
        try:
            streams = self._streams()
            lines = [(stream, line) for stream in streams for line in self._read(stream)]
        except (ClientError, BotoCoreError):
            return []
        if len(streams) == 1:
            return [line for _, line in lines]
        return [f"{_host(stream)}: {line}" for stream, line in lines]

    def last_lines(self, num: int) -> list[str]:
        return LogTail(self._client, self._group, self._prefix).new_lines()[-num:]

    def _streams(self) -> list[str]:
        request = {"logGroupName": self._group}
        if self._prefix:
            request["logStreamNamePrefix"] = self._prefix
        found = self._client.describe_log_streams(**request)["logStreams"]
        return sorted(one["logStreamName"] for one in found)

    def _read(self, stream: str) -> list[str]:
        lines: list[str] = []
        while True:
            token = self._tokens.get(stream)
            request = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": True}
            answer = self._client.get_log_events(**request, **({"nextToken": token} if token else {}))
            lines += [event["message"].rstrip("\n") for event in answer["events"]]
            self._tokens[stream] = answer["nextForwardToken"]
            # The end is told by a token that stays the same.
            if answer["nextForwardToken"] == token or not answer["events"]:
                return lines


def _host(stream: str) -> str:
    """``job/algo-1-1700000000`` → ``algo-1``."""
    last = stream.rpartition("/")[2]
    return "-".join(last.split("-")[:2])

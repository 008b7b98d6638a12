"""A job's log in CloudWatch (or the local client's), as it grows."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

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


Record = Mapping[str, Any]


class Follower:
    """Prints what is new each time that it is called with a job's description.

    Args:
        tail: the job's log.
        say: prints a line.
        stream: where the line of progress goes, if that is a terminal.
    """

    def __init__(
        self,
        tail: LogTail,
        say: Callable[[str], object],
        *,
        status_key: str = "SecondaryStatus",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tail, self._say, self._clock = tail, say, clock
        self._stream = stream or sys.stderr
        self._started = clock()
        self._status_key = status_key
        self._num_told = 0
        self._shown = ""

    def __call__(self, record: Record) -> None:
        self._erase()
        for transition in record.get("SecondaryStatusTransitions", [])[self._num_told :]:
            message = transition.get("StatusMessage", "")
            self._say(f"status      {transition['Status']}{f': {message}' if message else ''}")
            self._num_told += 1
        for line in self._tail.new_lines():
            self._say(line)
        if self._stream.isatty():
            seconds = round(self._clock() - self._started)
            self._shown = f"{record.get(self._status_key, '…')}  {seconds // 60}:{seconds % 60:02}"
            print(self._shown, end="", file=self._stream, flush=True)

    def close(self) -> None:
        self._erase()

    def _erase(self) -> None:
        if self._shown:
            print(f"\r{' ' * len(self._shown)}\r", end="", file=self._stream, flush=True)
            self._shown = ""

"""Monitoring of jobs and endpoints: their logs, their status, and polling until a final state.

The clients are boto3's or the local ones.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from botocore.exceptions import BotoCoreError, ClientError

from aws.errors import is_passing, translate_errors
from commands import interrupts
from launch.platform.resources import all_pages

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"

Record = Mapping[str, Any]

_MAX_FAILURES = 10
_MAX_BACKOFF = 8  # times the interval


class LogTail:
    """The log streams of one job or endpoint, read incrementally.

    Reading a log never fails a command: a log that can't be read has no lines.

    Args:
        client: boto3's ``logs`` client, or the local one.
        group: the log group.
        prefix: prefix of the streams' names.
    """

    def __init__(self, client: Any, group: str, prefix: str = "") -> None:
        self._client, self._group, self._prefix = client, group, prefix
        self._tokens: dict[str, str] = {}

    def new_lines(self) -> list[str]:
        """Return the lines logged since the last call, prefixed with the host's name if there are several hosts."""
        try:
            streams = self._streams()
            lines = [(stream, line) for stream in streams for line in self._read(stream)]
        except (ClientError, BotoCoreError):
            return []
        if len(streams) == 1:
            return [line for _, line in lines]
        return [f"{_host(stream)}: {line}" for stream, line in lines]

    def last_lines(self, num: int) -> list[str]:
        """Return the last ``num`` lines of the log, whatever was read before."""
        return LogTail(self._client, self._group, self._prefix).new_lines()[-num:]

    def _streams(self) -> list[str]:
        request = {"logGroupName": self._group}
        if self._prefix:
            request["logStreamNamePrefix"] = self._prefix
        found = all_pages(self._client.describe_log_streams, "logStreams", token_key="nextToken", **request)
        return sorted(stream["logStreamName"] for stream in found)

    def _read(self, stream: str) -> list[str]:
        lines: list[str] = []
        while True:
            token = self._tokens.get(stream)
            request = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": True}
            answer = self._client.get_log_events(**request, **({"nextToken": token} if token else {}))
            lines += [event["message"].rstrip("\n") for event in answer["events"]]
            self._tokens[stream] = answer["nextForwardToken"]
            # At the end of a stream, CloudWatch returns the same token again; a page before it may be empty.
            if answer["nextForwardToken"] == token:
                return lines


def describe_last_lines(tail: LogTail, num: int = 10) -> str:
    """Return the end of a log as the last lines of an error message, or nothing if the log is empty."""
    lines = "".join(f"\n  {line}" for line in tail.last_lines(num))
    return f"\nlast lines of its log:{lines}" if lines else ""


class JobMonitor:
    """Prints a job's status transitions and new log lines; on a terminal, its status and elapsed time as well.

    Args:
        tail: the job's log.
        print_line: prints a line of the job.
        status_key: the field of the job's description that the progress line shows.
        stream: where the progress line is drawn, if it is a terminal.
        clock: seconds, for the elapsed time.
    """

    def __init__(
        self,
        tail: LogTail,
        print_line: Callable[[str], object],
        *,
        status_key: str = "SecondaryStatus",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tail, self._print, self._clock = tail, print_line, clock
        self._stream = stream or sys.stderr
        self._started = clock()
        self._status_key = status_key
        self._num_transitions = 0
        self._progress = ""

    def update(self, record: Mapping[str, Any]) -> None:
        """Print what is new in the job's description and its log."""
        self._erase()
        for transition in record.get("SecondaryStatusTransitions", [])[self._num_transitions :]:
            message = transition.get("StatusMessage", "")
            self._print(f"status      {transition['Status']}{f': {message}' if message else ''}")
            self._num_transitions += 1
        for line in self._tail.new_lines():
            self._print(line)
        if self._stream.isatty():
            seconds = round(self._clock() - self._started)
            self._progress = f"{record.get(self._status_key, '…')}  {seconds // 60}:{seconds % 60:02}"
            print(self._progress, end="", file=self._stream, flush=True)

    def close(self) -> None:
        """Erase the progress line."""
        self._erase()

    def _erase(self) -> None:
        if self._progress:
            print(f"\r{' ' * len(self._progress)}\r", end="", file=self._stream, flush=True)
            self._progress = ""


def is_finished(record: Record, status_key: str) -> bool:
    """Whether a job's description shows a final status."""
    return record[status_key] in ("Completed", "Failed", "Stopped")


def wait(
    describe: Callable[[], Record],
    *,
    what: str,
    done: Callable[[Record], bool],
    each: Callable[[Record], object] = lambda _: None,
    interval_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Record:
    """Poll a description until it satisfies ``done``.

    Throttling and lost connections are retried with exponential backoff.

    Args:
        describe: fetches the description.
        what: the resource, for error messages.
        each: called with every description, the final one included.
        interval_s: seconds between two polls.

    Returns:
        The final description.

    Raises:
        CloudError: AWS refused the request, or ten requests in a row failed.
        KeyboardInterrupt: Ctrl-C was pressed, even if a library has lost it.
    """
    interrupts.check()
    failures = 0
    while True:
        with translate_errors(what):
            try:
                record = describe()
                failures = 0
            except (ClientError, BotoCoreError) as error:
                failures += 1
                if failures == _MAX_FAILURES or not is_passing(error):
                    raise
                record = None
        if record is not None:
            each(record)
            if done(record):
                return record
        interrupts.check()
        sleep(interval_s * min(2**failures, _MAX_BACKOFF))


def _host(stream: str) -> str:
    """Return the host of a stream: ``algo-1`` for ``job/algo-1-1700000000``."""
    last = stream.rpartition("/")[2]
    return "-".join(last.split("-")[:2])

"""A job, watched from its start to its end: status, log lines, and a line of progress on a terminal."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from launch.logs import LogTail

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

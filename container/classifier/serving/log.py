"""The server's log: lines of JSON on stdout, written by a thread, so that a stalled reader never blocks a request."""

import atexit
import json
import logging
import os
import queue
import select
import threading
import time
import traceback
from typing import Any

from classifier.serving.settings import MIB, LogLevel

MAX_LINES = 10_000
MAX_BYTES = 8 * MIB
# Writes of at most this size reach a pipe whole (PIPE_BUF), so lines of several processes are never mixed.
ATOMIC_BYTES = 4096
# Time for lines to gather: without it, each line would cost two switches between threads.
GATHER_S = 0.01
# How long the process waits at exit for its last lines to be read.
FLUSH_S = 1.0
MAX_TRACEBACK = 16 * 1024


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own; its callers never wait for the reader.

    The thread starts with the first line, so a process that forks earlier has none.

    Args:
        descriptor: of an open file.
        max_lines: lines in memory; further ones are dropped and counted.
        max_bytes: bytes in memory, likewise.
    """

    def __init__(self, descriptor: int, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._descriptor = descriptor
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Start with an empty queue and no thread, as is necessary in the child after a fork."""
        # Both may be entered again by the same thread: a finalizer that warns runs at any allocation.
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._num_lines = 0
        self._num_bytes = 0
        self._num_dropped = 0
        self._num_unreported = 0

    @property
    def num_dropped(self) -> int:
        """Number of lines that were dropped since the start of the process."""
        return self._num_dropped

    def write(self, line: str) -> None:
        """Queue a line, without its line break; dropped if the queue is full."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if self._num_lines >= self._max_lines or self._num_bytes + len(data) > self._max_bytes:
                self._num_dropped += 1
                self._num_unreported += 1
                return
            self._report_dropped()
            self._put(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until every queued line is written; returns whether that succeeded in time."""
        deadline = time.monotonic() + timeout_s
        while self._num_lines and time.monotonic() < deadline:
            time.sleep(GATHER_S / 2)
        return not self._num_lines

    def _put(self, data: bytes) -> None:
        self._num_lines += 1
        self._num_bytes += len(data)
        self._lines.put(data)

    def _report_dropped(self) -> None:
        with self._lock:
            if self._num_unreported:
                count, self._num_unreported = self._num_unreported, 0
                self._put(_line(level="warning", message="log lines dropped", count=count).encode() + b"\n")

    def _run(self) -> None:
        while True:
            lines = [self._lines.get()]
            time.sleep(GATHER_S)
            while not self._lines.empty():
                lines.append(self._lines.get())
            for chunk in _chunks(lines):
                self._write(chunk)
            self._report_dropped()

    def _write(self, chunk: list[bytes]) -> None:
        data = memoryview(b"".join(chunk))
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError:
            # The reader is gone. The server continues without a log.
            self._num_dropped += len(chunk)
        with self._lock:
            self._num_lines -= len(chunk)
            self._num_bytes -= sum(map(len, chunk))

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            # Another process that shares the file made it non-blocking.
            select.select([], [self._descriptor], [])
            return 0


def _chunks(lines: list[bytes]) -> list[list[bytes]]:
    """Group the lines into writes of at most ``ATOMIC_BYTES``; a longer line is one by itself."""
    chunks: list[list[bytes]] = []
    size = ATOMIC_BYTES
    for line in lines:
        size += len(line)
        if size > ATOMIC_BYTES:
            chunks.append([])
            size = len(line)
        chunks[-1].append(line)
    return chunks


_stdout = LineWriter(1)
os.register_at_fork(after_in_child=_stdout.reset)
atexit.register(_stdout.flush)


def log_line(**fields: Any) -> None:
    """Log one line of JSON with the time, without the fields that are None. Never blocks."""
    _stdout.write(_line(**fields))


def num_dropped() -> int:
    """Number of lines that this process dropped because stdout was not read in time."""
    return _stdout.num_dropped


def flush() -> None:
    """Wait until all lines are written, at most ``FLUSH_S``."""
    _stdout.flush()


def _line(**fields: Any) -> str:
    line = {"time": _timestamp(), **{name: value for name, value in fields.items() if value is not None}}
    return json.dumps(line, ensure_ascii=True, separators=(",", ":"), default=str)


def _timestamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


class JsonHandler(logging.Handler):
    """Writes the records of ``logging`` to the server's log: level, logger, message and traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        try:
            log_line(
                level=record.levelname.lower(),
                logger=record.name,
                message=record.getMessage(),
                traceback=format_traceback(record.exc_info[1]) if record.exc_info else None,
            )
        except Exception:
            self.handleError(record)


def redirect_logging(level: LogLevel) -> None:
    """Send everything that Python's ``logging``, ``warnings`` and failed threads report to the server's log."""
    root = logging.getLogger()
    root.handlers = [JsonHandler()]
    root.setLevel(logging.ERROR if level == "error" else logging.WARNING)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_failed_thread


def _log_failed_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else None
    log_line(level="error", message="a thread failed", thread=name, traceback=format_traceback(args.exc_value))


def format_traceback(error: BaseException | None) -> str | None:
    """The traceback of an exception as text, at most its last ``MAX_TRACEBACK`` characters."""
    return "".join(traceback.format_exception(error))[-MAX_TRACEBACK:] if error else None

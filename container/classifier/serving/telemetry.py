"""Prometheus metrics, and one JSON log line per request."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_STAGES = ("decode", "queue", "infer")


class Telemetry:
    """The server's counters and histograms, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("requests", "Requests answered, by status.", ["status"], registry=self.registry)
        self._seconds = Histogram(
            "request_seconds",
            "Time from a complete request to its response.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        stages = Histogram(
            "stage_seconds", "Time of a request in a stage.", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self._stages = {name: stages.labels(name) for name in _STAGES}
        self._batches = Histogram(
            "batch_size", "Photos in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self._batch_seconds = Histogram(
            "batch_seconds", "Time of a batch in the engine.", buckets=_SECONDS, registry=self.registry
        )
        self._depth = Gauge("queue_depth", "Photos that wait for the engine.", registry=self.registry)

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the time of one request in a stage: decode, queue or infer."""
        self._stages[name].observe(seconds)

    def record_batch(self, size: int, seconds: float) -> None:
        """Record a batch: its number of photos and its time in the engine."""
        self._batches.observe(size)
        self._batch_seconds.observe(seconds)

    def record_request(self, status: int, seconds: float) -> None:
        """Record a response: its HTTP status and the time since the request was complete."""
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def set_depth_source(self, depth: Callable[[], float]) -> None:
        """Set the function that returns the queue's depth; called whenever the metrics are scraped."""
        self._depth.set_function(depth)

    def publish(self, port: int) -> None:
        """Serve the metrics on a port of the loopback address; if the port is in use, log a warning and go without."""
        try:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            _log.warning("metrics are not available on port %d: %s", port, error)


def log_line(**fields: Any) -> None:
    """Write one line of JSON to stdout, without the fields that are None."""
    line = {"time": _timestamp(), **{name: value for name, value in fields.items() if value is not None}}
    # One write per line: lines of concurrent threads would otherwise be mixed.
    sys.stdout.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _timestamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"

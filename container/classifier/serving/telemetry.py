"""Prometheus metrics of the server: requests by route and model, stages, batches, queues, refusals, the process."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from classifier.serving import log

_log = logging.getLogger(__name__)

# The name of the model where only one is served.
SINGLE_MODEL = "default"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Queues(Protocol):
    """A model's queues, such as a ``Predictor``'s."""

    @property
    def queue_depth(self) -> int:
        """Number of photos that wait for the engine."""
        ...

    @property
    def decode_queue_depth(self) -> int:
        """Number of photos that wait for a decoder."""
        ...


class ModelMetrics:
    """The recorder of one model's stages and batches.

    Args:
        model: the model's label.
        lock: held while series are added, so that none appears again after ``remove``.
    """

    def __init__(
        self, model: str, stages: Histogram, batches: Histogram, batch_seconds: Histogram, lock: threading.Lock
    ) -> None:
        self._model = model
        self._stages = stages
        self._batches = batches.labels(model)
        self._batch_seconds = batch_seconds.labels(model)
        self._lock = lock
        self._is_removed = False

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the time of one request in a stage, such as decode, queue or infer."""
        with self._lock:
            if not self._is_removed:
                self._stages.labels(self._model, name).observe(seconds)

    def record_batch(self, size: int, seconds: float) -> None:
        """Record a batch: its number of photos and its time in the engine."""
        self._batches.observe(size)
        self._batch_seconds.observe(seconds)

    def remove(self) -> None:
        """Record no further stages. The caller holds the lock."""
        self._is_removed = True


class Telemetry(Collector):
    """The server's metrics, in a registry of their own.

    The values of labels are bounded: routes are templates, not paths; models are those loaded now; reasons are types.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._models: dict[str, ModelMetrics] = {}
        self._queues: Callable[[], Mapping[str, Queues]] = dict
        self._num_restarts = 0
        self._requests = self._counter("requests", "Requests answered.", "method", "route", "model", "status")
        self._seconds = self._histogram(
            "request_seconds", "Time from a complete request to its response.", _SECONDS, "method", "route", "model"
        )
        self._stages = self._histogram("stage_seconds", "Time of a request in a stage.", _SECONDS, "model", "stage")
        self._batches = self._histogram("batch_size", "Photos in a batch.", _SIZES, "model")
        self._batch_seconds = self._histogram("batch_seconds", "Time of a batch in the engine.", _SECONDS, "model")
        self._refusals = self._counter("refusals", "Requests answered with an error, by its type.", "reason")
        self._evictions = self._counter("evictions", "Connections closed to make room for others.")
        self._timeouts = self._counter("receive_timeouts", "Requests that did not arrive in time.")
        self._connections = self._gauge("connections", "Open connections.")
        self._buffered = self._gauge("buffered_bytes", "Bytes of request bodies and headers in memory.")
        self._in_flight = self._gauge("requests_in_flight", "Complete requests that are not answered yet.")
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    @contextmanager
    def loading(self, name: str) -> Iterator[ModelMetrics]:
        """Provide the recorder of a model that is being loaded; removed again if that fails."""
        with self._lock:
            metrics = ModelMetrics(_label(name), self._stages, self._batches, self._batch_seconds, self._lock)
            self._models[name] = metrics
        try:
            yield metrics
        except BaseException:
            self.remove_model(name)
            raise

    def remove_model(self, name: str) -> None:
        """Remove the series of a model that is unloaded."""
        with self._lock:
            metrics = self._models.pop(name, None)
            if metrics is None:
                return
            metrics.remove()
            for family in (self._requests, self._seconds, self._stages, self._batches, self._batch_seconds):
                family.remove_by_labels({"model": _label(name)})

    def record_request(self, *, method: str, route: str, model: str, status: int, seconds: float) -> None:
        """Record a response.

        Args:
            method: the HTTP method; one that the route supports.
            route: the template of the path.
            model: the model's name; counted as none unless it is loaded.
            status: the HTTP status.
            seconds: the time since the request was complete.
        """
        # With the lock, or the series of a model that is being removed would appear again.
        with self._lock:
            label = _label(model) if model in self._models else ""
            self._requests.labels(method, route, label, status).inc()
            self._seconds.labels(method, route, label).observe(seconds)

    def record_refusal(self, error: Exception) -> None:
        """Record a request that was answered with an error; the application does so for all that reach it."""
        self._refusals.labels(type(error).__name__).inc()

    def record_eviction(self) -> None:
        """Record a connection that was closed to make room for another."""
        self._evictions.inc()

    def record_receive_timeout(self) -> None:
        """Record a request that did not arrive in time."""
        self._timeouts.inc()

    def set_gauges(
        self, *, connections: Callable[[], float], buffered_bytes: Callable[[], float], in_flight: Callable[[], float]
    ) -> None:
        """Set the functions that return the transport's state; called whenever the metrics are scraped."""
        self._connections.set_function(connections)
        self._buffered.set_function(buffered_bytes)
        self._in_flight.set_function(in_flight)

    def set_queues(self, queues: Callable[[], Mapping[str, Queues]]) -> None:
        """Set the function that returns the loaded models' queues by name; called at each scrape."""
        self._queues = queues

    def set_restarts(self, count: int) -> None:
        """Set how often the worker process was started again."""
        self._num_restarts = count

    def collect(self) -> Iterator[Metric]:
        """The metrics that are read when they are scraped."""
        yield _count("worker_restarts", "Times that the worker process was started again.", self._num_restarts)
        yield _count("log_lines_dropped", "Log lines dropped because stdout was not read in time.", log.num_dropped())
        models = {_label(name): queues for name, queues in self._queues().items()}
        engine = {model: queues.queue_depth for model, queues in models.items()}
        yield _depths("engine_queue_depth", "Photos that wait for the engine.", engine)
        decoders = {model: queues.decode_queue_depth for model, queues in models.items()}
        yield _depths("decode_queue_depth", "Photos that wait for a decoder.", decoders)

    def publish(self, host: str, port: int) -> None:
        """Serve the metrics on a port; if that fails, log a warning and go without."""
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            _log.warning("metrics are not available on %s, port %d: %s", host, port, error)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"classifier_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"classifier_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"classifier_{name}", text, labels, buckets=buckets, registry=self.registry)


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"classifier_{name}", text, value=value)


def _depths(name: str, text: str, depths: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"classifier_{name}", text, labels=["model"])
    for model, depth in depths.items():
        family.add_metric([model], depth)
    return family


def _label(name: str) -> str:
    # A lone surrogate in a model's name would make every scrape fail.
    return name.encode("utf-8", "backslashreplace").decode()

"""Gunicorn around the application: its configuration, and what its worker builds after the fork."""

import gc
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger

from classifier.contract.paths import Paths
from classifier.errors import ConfigError, UserError
from classifier.host import available_memory, has_gpu
from classifier.serving.asgi import Adapter, Admission
from classifier.serving.connections import Connections
from classifier.serving.log import JsonHandler, log_line, redirect_logging
from classifier.serving.settings import ServerSettings
from classifier.signals import STOP_SIGNALS

# What a worker needs beyond its drain to end.
SHUTDOWN_S = 4
BACKLOG = 1024
SHARED_MEMORY = Path("/dev/shm")


class GunicornApplication(BaseApplication):
    """Gunicorn with one worker: OpenVINO uses all cores from one process, and CUDA does not survive a fork."""

    def __init__(self, paths: Paths, settings: ServerSettings) -> None:
        self._paths = paths
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Configure Gunicorn; called by its constructor."""
        options: dict[str, Any] = {
            "bind": f"{self._settings.host}:{self._settings.port}",
            "workers": 1,
            "worker_class": "classifier.serving.worker.ServerWorker",
            "backlog": BACKLOG,
            # Also how long Gunicorn waits for a body to go on; the limit on that is ours.
            "timeout": max(60, round(self._settings.receive_timeout_s) + 30),
            "graceful_timeout": round(self._settings.drain_s) + SHUTDOWN_S,
            "keepalive": round(self._settings.keep_alive_s),
            "asgi_loop": "asyncio",
            "asgi_lifespan": "off",
            "http_parser": "python",
            "worker_tmp_dir": str(heartbeat_folder()),
            "loglevel": "warning",
            "logger_class": JsonLogger,
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until a signal stops the server."""
        ServerArbiter(self).run()

    def load(self) -> Any:
        """Build what serves connections; called in the worker. Exits if there is no usable model."""
        try:
            return build_app(self._paths, self._settings)
        except UserError as error:
            print(f"serve: {error}", file=sys.stderr, flush=True)
            # On this exit code Gunicorn stops instead of starting another worker, which would fail likewise.
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ServerArbiter(Arbiter):
    """Gunicorn's arbiter, which loses no signal to its worker."""

    def spawn_worker(self) -> Any:
        """Fork a worker with the stop signals blocked until it has handlers: its parent's would swallow them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class JsonLogger(Logger):
    """Gunicorn's logger, in the format of all other lines and never blocked by the log's reader."""

    def setup(self, cfg: Config) -> None:
        """Configure; called by the constructor and whenever Gunicorn reloads its configuration."""
        super().setup(cfg)
        self.error_log.handlers = [JsonHandler()]


def heartbeat_folder(preferred: Path = SHARED_MEMORY) -> Path:
    """The folder for the worker's heartbeat: shared memory, since a disk that stalls makes a healthy worker look dead.

    A container may have none (``docker run --ipc=none``), or not be allowed to write to it.
    """
    try:
        with tempfile.TemporaryFile(dir=preferred):
            return preferred
    except OSError:
        return Path(tempfile.gettempdir())


def check_port(host: str, port: int) -> None:
    """Check that the address is free, since Gunicorn would retry for five seconds and report less.

    Raises:
        ConfigError: it can't be bound.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"can't listen on port {port}: {(error.strerror or str(error)).lower()}. Stop the program that uses "
                "it, or choose another port (SAGEMAKER_BIND_TO_PORT; --port of serve_local.sh)"
            ) from None


def build_app(paths: Paths, settings: ServerSettings) -> Connections:
    """Load the model, or prepare to load several, and return what serves connections, ready to answer.

    Raises:
        ArtifactError: there is no model, or a damaged one.
    """
    # Imported in the worker: the process that forks it stays small and free of the threads that these libraries start.
    from classifier.serving.app import INLINE_PATHS, create_app, create_multi_model_app  # noqa: PLC0415
    from classifier.serving.model_manager import ModelManager  # noqa: PLC0415
    from classifier.serving.predictor import Predictor  # noqa: PLC0415
    from classifier.serving.startup import describe_server  # noqa: PLC0415
    from classifier.serving.telemetry import SINGLE_MODEL, Telemetry  # noqa: PLC0415

    redirect_logging(settings.log_level)
    telemetry, admission = Telemetry(), Admission()
    if settings.metrics_port:
        telemetry.publish(settings.metrics_host, settings.metrics_port)

    def open_model(name: str, folder: Path) -> Predictor:
        with telemetry.loading(name) as metrics:
            return Predictor.open(folder, settings, metrics)

    if settings.multi_model:
        manager = ModelManager(paths.base / "models", open_model, available_memory, _gpu_memory())
        app = create_multi_model_app(manager, settings, telemetry, admission)
        log_line(**describe_server(settings))
    else:
        predictor = open_model(SINGLE_MODEL, paths.model)
        app = create_app(predictor, settings, telemetry, admission)
        log_line(**describe_server(settings, predictor))
    adapter = Adapter(app, settings, admission, inline=INLINE_PATHS)
    connections = Connections(settings, adapter, admission, telemetry, max_connections=_max_connections(settings))
    telemetry.set_gauges(
        connections=lambda: len(connections),
        buffered_bytes=lambda: connections.num_buffered,
        in_flight=lambda: admission.num_in_flight,
    )
    # What has been imported and loaded stays: a collection need not look at it, which would take 0.1 s.
    gc.collect()
    gc.freeze()
    return connections


def _gpu_memory() -> Callable[[], int] | None:
    """Return what measures the GPU's free memory; None without a GPU."""
    if not has_gpu():
        return None
    from classifier.engine.gpu import check_gpu_is_usable, free_gpu_memory  # noqa: PLC0415 - imports torch

    check_gpu_is_usable()
    return free_gpu_memory


def _max_connections(settings: ServerSettings) -> int:
    """The configured limit, or what the limit on file descriptors leaves beside those of the rest of the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    available = settings.max_connections if soft == resource.RLIM_INFINITY else max(soft - 100, 16)
    return min(settings.max_connections, available)

"""The Gunicorn application: its configuration, its worker, and the application that the worker builds after the fork."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gasgi import ASGIWorker

from classifier.contract.paths import Paths
from classifier.errors import ConfigError, UserError
from classifier.host import available_memory, tune_malloc
from classifier.serving.asgi import Adapter
from classifier.serving.connections import Connection, Connections
from classifier.serving.settings import ServerSettings

# What a worker needs beyond its drain to end.
SHUTDOWN_S = 4
# During a drain: the time for requests that have begun to arrive, and for those that were sent before their sender could
# learn that the server is stopping.
RECEIVE_S = 5.0
LATE_S = 0.5
HEARTBEAT_S = 0.5
BACKLOG = 1024
ADDRESS = "0.0.0.0"


class GunicornApplication(BaseApplication):
    """Gunicorn with one worker: OpenVINO uses all cores from one process, and CUDA does not survive a fork."""

    def __init__(self, paths: Paths, settings: ServerSettings) -> None:
        self._paths = paths
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Configure Gunicorn; called by its constructor."""
        options: dict[str, Any] = {
            "bind": f"{ADDRESS}:{self._settings.port}",
            "workers": 1,
            "worker_class": "classifier.serving.server.ServerWorker",
            "backlog": BACKLOG,
            "timeout": 60,
            "graceful_timeout": round(self._settings.drain_s) + SHUTDOWN_S,
            "keepalive": round(self._settings.keep_alive_s),
            "asgi_loop": "asyncio",
            "asgi_lifespan": "off",
            "http_parser": "python",
            # For the heartbeat's file; on a disk that stalls a healthy worker would look dead.
            "worker_tmp_dir": "/dev/shm",
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the application; called in the worker. Exits if there is no usable model."""
        try:
            return build_app(self._paths, self._settings)
        except UserError as error:
            print(f"serve: {error}", file=sys.stderr, flush=True)
            # On this exit code Gunicorn stops instead of starting another worker, which would fail likewise.
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ServerWorker(ASGIWorker):
    """Gunicorn's ASGI worker with our connections, a heartbeat while it loads, and a drain that loses no request."""

    asgi: Adapter
    connections: Connections

    def load_wsgi(self) -> None:
        """Load the application, sending heartbeats meanwhile: it may take longer than Gunicorn's timeout."""
        tune_malloc("serving")
        loaded = threading.Event()
        heartbeat = threading.Thread(target=_notify_until, args=(loaded, self.notify), daemon=True)
        heartbeat.start()
        try:
            super().load_wsgi()
        finally:
            loaded.set()
            heartbeat.join()

    async def _serve(self) -> None:
        """Serve until Gunicorn stops this worker or dies, then drain."""
        self.connections = Connections(self.asgi.settings, self.asgi, self.asgi.telemetry)
        listeners: list[socket.socket] = [cast(Any, one).sock for one in self.sockets]
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(lambda: Connection(self, self.connections), sock=one, backlog=BACKLOG)
            for one in listeners
        ]
        while self.alive and self.ppid == os.getppid():
            self._beat()
            await asyncio.sleep(HEARTBEAT_S)
        await self._drain()

    def _beat(self) -> None:
        self.notify()
        self.connections.sweep()

    async def _drain(self) -> None:
        """Accept nothing new and answer every request that has begun to arrive."""
        self.alive = False  # responses announce that their connection closes
        self.asgi.is_draining = True
        # Connections that the kernel has accepted before the listeners close are served.
        await asyncio.sleep(0.01)
        for server in self.servers:
            server.close()
        start = self.connections.clock()
        while (elapsed := self.connections.clock() - start) < self.asgi.settings.drain_s and not self._quick_shutdown:
            self._beat()
            receiving = elapsed < RECEIVE_S
            if elapsed > LATE_S and not any(one.is_busy(receiving=receiving) for one in self.connections):
                break
            await asyncio.sleep(0.05)
        for connection in self.connections:
            connection.close()
        # Lets the loop send what has been written.
        await asyncio.sleep(0)


def check_port(port: int) -> None:
    """Check that the port is free, since Gunicorn would retry for five seconds and report less.

    Raises:
        ConfigError: the port can't be bound.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise ConfigError(
                f"can't listen on port {port}: {(error.strerror or str(error)).lower()}. Stop the program that uses "
                "it, or choose another port (SAGEMAKER_BIND_TO_PORT; --port of serve_local.sh)"
            ) from None


def build_app(paths: Paths, settings: ServerSettings) -> Adapter:
    """Load the model, or prepare to load several, and return the application, ready to answer.

    Raises:
        ArtifactError: there is no model, or a damaged one.
    """
    # Imported in the worker: the process that forks it stays small and free of the threads that these libraries start.
    from classifier.serving.app import INLINE_PATHS, create_app, create_multi_model_app  # noqa: PLC0415
    from classifier.serving.model_manager import ModelManager  # noqa: PLC0415
    from classifier.serving.predictor import Predictor  # noqa: PLC0415
    from classifier.serving.telemetry import Telemetry  # noqa: PLC0415

    telemetry = Telemetry()
    if settings.metrics_port:
        telemetry.publish(settings.metrics_port)
    if settings.multi_model:
        manager = ModelManager(
            paths.base / "models", lambda folder: Predictor.open(folder, settings, telemetry), available_memory
        )
        app = create_multi_model_app(manager, settings, telemetry)
    else:
        app = create_app(Predictor.open(paths.model, settings, telemetry), settings, telemetry)
    return Adapter(app, settings, telemetry, inline=INLINE_PATHS)


def _notify_until(done: threading.Event, notify: Callable[[], None]) -> None:
    while not done.wait(HEARTBEAT_S):
        notify()

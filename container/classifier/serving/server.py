"""The Gunicorn application: its configuration, and the WSGI application that its worker builds after the fork."""

import socket
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from classifier.contract.paths import Paths
from classifier.errors import ConfigError, UserError
from classifier.serving.http import WsgiApp
from classifier.serving.settings import ServerSettings

# Longer than the worker's own drain, shorter than the platform's 30 s between SIGTERM and SIGKILL.
GRACEFUL_TIMEOUT_S = 24
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
            "worker_class": "classifier.serving.worker.FrontWorker",
            "backlog": 1024,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            # For the heartbeat's file; on a disk that stalls a healthy worker would look dead.
            "worker_tmp_dir": "/dev/shm",
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the WSGI application; called in the worker. Exits if there is no usable model."""
        try:
            return build_app(self._paths, self._settings)
        except UserError as error:
            print(f"serve: {error}", file=sys.stderr, flush=True)
            # On this exit code Gunicorn stops instead of starting another worker, which would fail likewise.
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


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


def build_app(paths: Paths, settings: ServerSettings) -> WsgiApp:
    """Load the model, or prepare to load several, and return the WSGI application, ready to answer.

    Raises:
        ArtifactError: there is no model, or a damaged one.
    """
    # Imported in the worker: the process that forks it stays small and free of the threads that these libraries start.
    from classifier.serving.app import create_app, create_multi_model_app  # noqa: PLC0415
    from classifier.serving.model_manager import ModelManager, available_memory  # noqa: PLC0415
    from classifier.serving.predictor import Predictor  # noqa: PLC0415
    from classifier.serving.telemetry import Telemetry  # noqa: PLC0415

    telemetry = Telemetry()
    if settings.metrics_port:
        telemetry.publish(settings.metrics_port)
    if settings.multi_model:
        manager = ModelManager(
            paths.base / "models", lambda folder: Predictor.open(folder, settings, telemetry), available_memory
        )
        return create_multi_model_app(manager, settings, telemetry)
    return create_app(Predictor.open(paths.model, settings, telemetry), settings, telemetry)

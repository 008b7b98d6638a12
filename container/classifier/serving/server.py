"""Gunicorn's settings, and what its worker builds once it is forked."""

import socket
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from classifier.contract.paths import Paths
from classifier.errors import ConfigError, UserError
from classifier.serving.http import WsgiApp
from classifier.serving.settings import Settings

# Longer than the worker's own drain, shorter than the platform's 30 s.
GRACEFUL_TIMEOUT_S = 24
ADDRESS = "0.0.0.0"


class Server(BaseApplication):
    """One worker a model: OpenVINO has all cores from one process, and CUDA does not survive a fork."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"{ADDRESS}:{self._settings.port}",
            "workers": 1,
            "worker_class": "classifier.serving.worker.FrontWorker",
            "backlog": 1024,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            # The heartbeat's file; a disk that stalls would look like a dead worker.
            "worker_tmp_dir": "/dev/shm",
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        try:
            return build_app(self._paths, self._settings)
        except UserError as error:
            print(f"serve: {error}", file=sys.stderr, flush=True)
            # By this code Gunicorn knows that another worker would fare no better, and ends.
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def check_port(port: int) -> None:
    """Gunicorn would try for five seconds, and then say less.

    Raises:
        ConfigError: nothing can listen there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise ConfigError(
                f"can't listen on port {port}: {(error.strerror or str(error)).lower()}. Stop what listens there, or "
                "choose another port (SAGEMAKER_BIND_TO_PORT; --port of serve_local.sh)"
            ) from None


def build_app(paths: Paths, settings: Settings) -> WsgiApp:
    """The artifact, or the shelf for several → the application, ready to answer.

    Raises:
        ArtifactError: there is no model, or one whose parts do not fit each other.
    """
    # Here, in the worker: the process that forks it stays small, and free of the threads that these libraries start.
    from classifier.serving.app import create_app, create_multi_model_app  # noqa: PLC0415
    from classifier.serving.model_manager import Shelf, available_memory  # noqa: PLC0415
    from classifier.serving.predictor import Predictor  # noqa: PLC0415
    from classifier.serving.telemetry import Telemetry  # noqa: PLC0415

    telemetry = Telemetry()
    if settings.metrics_port:
        telemetry.publish(settings.metrics_port)
    if settings.multi_model:
        shelf = Shelf(
            paths.base / "models", lambda folder: Predictor.open(folder, settings, telemetry), available_memory
        )
        return create_multi_model_app(shelf, settings, telemetry)
    return create_app(Predictor.open(paths.model, settings, telemetry), settings, telemetry)

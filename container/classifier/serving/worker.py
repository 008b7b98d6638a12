"""The Gunicorn worker: loads the model, and serves its requests with a ``Front``."""

import os
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

from gunicorn.workers.base import Worker

from classifier.host import tune_malloc
from classifier.serving.app import INLINE_PATHS
from classifier.serving.front import Front
from classifier.serving.settings import ServerSettings

# Together shorter than the platform's 30 s between SIGTERM and SIGKILL, and than Gunicorn's graceful timeout.
DRAIN_S = 20.0
RECEIVE_S = 5.0
# Long enough for a request that was sent before its sender could learn that the server is stopping.
LINGER_S = 0.5
HEARTBEAT_S = 1.0
MAX_CONNECTIONS = 2000


class FrontWorker(Worker):
    """One process with one application and one front."""

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

    def run(self) -> None:
        """Serve until Gunicorn stops this worker or dies, then drain."""
        listeners: list[socket.socket] = [cast(Any, one).sock for one in self.sockets]
        front = Front(
            listeners,
            self.wsgi,
            ServerSettings.from_environment(),
            inline=INLINE_PATHS,
            max_connections=_max_connections(),
        )
        front.watch(self.PIPE[0])
        while self.alive and self._has_parent():
            self.notify()
            front.run_once(HEARTBEAT_S)
        front.drain(within_s=DRAIN_S, receive_s=RECEIVE_S, linger_s=LINGER_S, tick=self.notify)
        front.close()

    def _has_parent(self) -> bool:
        return os.getppid() == self.ppid


def _max_connections() -> int:
    """The limit on file descriptors, less those that the rest of the process needs; at most ``MAX_CONNECTIONS``."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(min(MAX_CONNECTIONS, soft - 100), 16)


def _notify_until(done: threading.Event, notify: Callable[[], None]) -> None:
    while not done.wait(HEARTBEAT_S):
        notify()

"""Gunicorn's worker: the model is loaded in it, and a ``Front`` takes its requests."""

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
from classifier.serving.settings import Settings

# Together below the platform's 30 s between SIGTERM and SIGKILL, and Gunicorn's own patience.
DRAIN_S = 20.0
RECEIVE_S = 5.0
# Long enough for a request that was sent before its sender could learn that this server is stopping.
LAST_CALL_S = 0.5
HEARTBEAT_S = 1.0
MAX_CONNECTIONS = 2000


class FrontWorker(Worker):
    """One process: one model, one front."""

    def load_wsgi(self) -> None:
        tune_malloc("serving")
        # Loading may take longer than Gunicorn waits for a sign of life.
        loaded = threading.Event()
        ticker = threading.Thread(target=_tick_until, args=(loaded, self.notify), daemon=True)
        ticker.start()
        try:
            super().load_wsgi()
        finally:
            loaded.set()
            ticker.join()

    def run(self) -> None:
        listeners: list[socket.socket] = [cast(Any, one).sock for one in self.sockets]
        front = Front(
            listeners,
            self.wsgi,
            Settings.from_environment(),
            inline=INLINE_PATHS,
            max_connections=_max_connections(),
        )
        front.watch(self.PIPE[0])
        while self.alive and self._has_parent():
            self.notify()
            front.turn(HEARTBEAT_S)
        front.drain(within_s=DRAIN_S, receive_s=RECEIVE_S, linger_s=LAST_CALL_S, tick=self.notify)
        front.close()

    def _has_parent(self) -> bool:
        return os.getppid() == self.ppid


def _max_connections() -> int:
    """As many as descriptors allow, less those that the rest of the process needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(min(MAX_CONNECTIONS, soft - 100), 16)


def _tick_until(done: threading.Event, notify: Callable[[], None]) -> None:
    while not done.wait(HEARTBEAT_S):
        notify()

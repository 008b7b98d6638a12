"""Gunicorn's ASGI worker with our connections, a heartbeat while it loads, and a drain that loses no request."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from gunicorn.workers.gasgi import ASGIWorker

from classifier.host import tune_malloc
from classifier.serving.connection import Connection
from classifier.serving.connections import Connections
from classifier.signals import STOP_SIGNALS

# During a drain: the time for requests that have begun to arrive, and for those sent before their sender could know.
RECEIVE_S = 5.0
LATE_S = 1.0
# Connections accepted in one iteration of the loop: asyncio's argument `backlog`. The kernel's is set after it. Many,
# since a ping waits for all that came before it to be accepted, but for none of their requests.
MAX_ACCEPTS = 128
HEARTBEAT_S = 0.5
POLL_S = 0.05
# Any: the type stubs of Gunicorn are older than its ASGI worker.
_Worker: Any = ASGIWorker


class ServerWorker(_Worker):
    """Gunicorn's ASGI worker with our connections, a heartbeat while it loads, and a drain that loses no request."""

    connections: Connections

    def load_wsgi(self) -> None:
        """Load the application. Until it is loaded there is nothing to drain, so a signal ends the worker at once."""
        for number in (*STOP_SIGNALS, signal.SIGQUIT):
            signal.signal(number, _end_at_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self.load_connections()
        self.init_signals()

    def load_connections(self) -> None:
        """Load the application, sending heartbeats meanwhile: it may take longer than Gunicorn's timeout."""
        tune_malloc("serving")
        loaded = threading.Event()
        heartbeat = threading.Thread(target=_notify_until, args=(loaded, self.notify), daemon=True)
        heartbeat.start()
        try:
            self.connections = self.app.wsgi()
        finally:
            loaded.set()
            heartbeat.join()
        self.asgi = self.connections.adapter
        self.connections.telemetry.set_restarts(self.age - 1)

    async def _serve(self) -> None:
        """Serve until Gunicorn stops this worker or dies, then drain."""
        self._listeners: list[socket.socket] = [cast(Any, one).sock for one in self.sockets]
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._connect, sock=one, backlog=MAX_ACCEPTS) for one in self._listeners
        ]
        for one in self._listeners:
            one.listen(self.cfg.backlog)
        beaten = 0.0
        while self.alive and self.ppid == os.getppid():
            if self.connections.clock() - beaten > HEARTBEAT_S:
                self._beat()
                beaten = self.connections.clock()
            await asyncio.sleep(POLL_S)
        await self._drain()

    def _beat(self) -> None:
        self.notify()
        self.connections.sweep()

    async def _drain(self) -> None:
        """Accept nothing new and answer every request that has begun to arrive."""
        self.alive = False  # responses announce that their connection closes
        self.connections.admission.is_draining = True
        await self._stop_listening()
        start, elapsed = self.connections.clock(), 0.0
        while elapsed < self.connections.settings.drain_s and not self._quick_shutdown:
            self._beat()
            receiving = elapsed < RECEIVE_S
            if elapsed > LATE_S and not any(one.is_busy(receiving=receiving) for one in self.connections):
                break
            await asyncio.sleep(POLL_S)
            elapsed = self.connections.clock() - start
        for connection in self.connections:
            connection.close()
        # Lets the loop send what has been written.
        await asyncio.sleep(0)

    async def _stop_listening(self) -> None:
        # Connections that the kernel has accepted are served; those left when the listener closes would be reset.
        accepted: list[socket.socket] = []
        for listener in self._listeners:
            with suppress(BlockingIOError):
                while True:
                    accepted.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for one in accepted:
            one.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._connect, one)

    def _connect(self) -> Connection:
        return Connection(self, self.connections)


def _end_at_once(_number: int, _frame: object) -> None:
    os._exit(0)


def _notify_until(done: threading.Event, notify: Callable[[], None]) -> None:
    while not done.wait(HEARTBEAT_S):
        notify()

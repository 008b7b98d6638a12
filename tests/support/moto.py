"""A moto server in a process of its own, and a proxy that breaks connections to it."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support import shared_loader  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def moto_server(port: int, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def speak_to(url: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Point every AWS client at a server, with no other AWS configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(home / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)


def _wait_for(url: str) -> None:
    for _ in range(300):
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


class Proxy:
    """A TCP proxy that breaks its first ``num_broken`` connections after ``after_bytes`` bytes to the server."""

    def __init__(self, target: int, num_broken: int, after_bytes: int) -> None:
        self.num_connections = 0
        self._target, self._num_broken, self._after = target, num_broken, after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.num_connections += 1
            limit = self._after if self.num_connections <= self._num_broken else sys.maxsize
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for source, sink, bound in ((client, server, limit), (server, client, sys.maxsize)):
                thread = threading.Thread(target=_pump, args=(source, sink, bound), daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """Break all connections and stop listening."""
        for end in self._sockets:
            _close(end)
        for thread in self._threads:
            thread.join(5)


def _close(end: socket.socket) -> None:
    # shutdown() wakes a thread that is blocked on the socket; close() alone does not.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _pump(source: socket.socket, sink: socket.socket, bound: int) -> None:
    with suppress(OSError):
        while bound > 0 and (data := source.recv(min(65536, bound))):
            sink.sendall(data)
            bound -= len(data)
    # Both pumps of a connection get here, in either order.
    _close(source)
    _close(sink)

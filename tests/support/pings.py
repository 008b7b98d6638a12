"""Pings at a steady pace from a process of its own, which nothing else in the test can delay."""

import json
import math
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

EVERY_S = 0.05
TIMEOUT_S = 60.0


@dataclass
class Pings:
    """Seconds that each ping took; infinite if it was not answered with 200. Filled at the end of ``pinging``."""

    seconds: list[float] = field(default_factory=list)

    @property
    def max_s(self) -> float:
        return max(self.seconds)

    @property
    def p99_s(self) -> float:
        return sorted(self.seconds)[math.ceil(len(self.seconds) * 0.99) - 1]

    def __str__(self) -> str:
        return f"{len(self.seconds):,} pings: p99 {self.p99_s * 1e3:.0f} ms, max {self.max_s * 1e3:.0f} ms"


@contextmanager
def pinging(port: int) -> Iterator[Pings]:
    """Ping meanwhile, each time over a new connection."""
    pings = Pings()
    with subprocess.Popen(
        [sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        # The first line says that the first ping was answered.
        process.stdout.readline()
        try:
            yield pings
        finally:
            printed, _ = process.communicate()
            pings.seconds += json.loads(printed)


def _ping(port: int) -> float:
    start = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
            sock.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            is_fine = sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        is_fine = False
    return time.monotonic() - start if is_fine else math.inf


def _main(port: int) -> None:
    seconds = [_ping(port)]
    print("ready", flush=True)
    # Until stdin is closed.
    while not select.select([sys.stdin], [], [], max(EVERY_S - seconds[-1], 0))[0]:
        seconds.append(_ping(port))
    print(json.dumps(seconds))


if __name__ == "__main__":
    _main(int(sys.argv[1]))

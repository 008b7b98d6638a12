"""Soak test: many requests over keep-alive connections must not grow the server's memory, threads or descriptors.

  make soak-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve_soak --count 20000

A real `serve` on a small model, on this machine only. Prints a line after each tenth, and fails if the worker uses more
at the end than after the warm-up. A connection carries a few hundred requests and is then replaced.
"""

import argparse
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Usage
from support.servers import ServerProcess, drawn_photos, exchange, export_artifact, running, write_artifact

NUM_CONNECTIONS = 8
REQUESTS_PER_CONNECTION = 250
NUM_SAMPLES = 10
# Fluctuations of the allocator; a leak of 200 bytes per request shows after 100,000.
MEMORY_TOLERANCE = 16 * 1024 * 1024
# The pool adds a thread if none is known to be idle; one that has just answered may not be counted yet.
THREADS_TOLERANCE = 4


@dataclass
class Soak:
    """Resources of the worker, sampled at equal intervals after the warm-up."""

    num_sent: int
    seconds: float
    usages: list[Usage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def judge(self) -> list[str]:
        """The problems found: growth, and failed requests."""
        first, last = self.usages[0], self.usages[-1]
        problems = list(self.problems)
        if last.anonymous > first.anonymous + MEMORY_TOLERANCE:
            problems.append(f"memory grew by {(last.anonymous - first.anonymous) / 1e6:.1f} MB")
        if last.num_threads > first.num_threads + THREADS_TOLERANCE:
            problems.append(f"threads grew from {first.num_threads} to {last.num_threads}")
        if last.num_descriptors > first.num_descriptors:
            problems.append(f"descriptors grew from {first.num_descriptors} to {last.num_descriptors}")
        return problems


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        export_artifact(write_artifact(base / "model"))
        with running(base, base / "log") as server:
            result = soak(server, options.count, log=lambda text: print(text, flush=True))
    print(f"{result.num_sent:,} requests in {result.seconds:.0f} s, {result.num_sent / result.seconds:,.0f}/s")
    sys.exit("\n".join(result.judge()) or None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    return parser.parse_args()


def soak(server: ServerProcess, count: int, *, log: Callable[[str], None] = lambda _text: None) -> Soak:
    """Send ``count`` requests, sampling the worker's resources after each tenth."""
    photos = drawn_photos(16)
    [worker] = server.workers()
    part = max(count // NUM_SAMPLES // NUM_CONNECTIONS, 1)
    result, start = Soak(0, 0.0), time.monotonic()
    for number in range(NUM_SAMPLES):
        result.problems += _send_all(server, photos, part)
        result.num_sent += part * NUM_CONNECTIONS
        usage = _settled(worker)
        log(f"{result.num_sent:>9,} requests: {usage}")
        # The first tenth is the warm-up: threads are started on demand, and the allocator reaches its size.
        if number > 0:
            result.usages.append(usage)
    result.seconds = time.monotonic() - start
    if server.workers() != [worker]:
        result.problems.append("the worker died and was replaced")
    return result


def _settled(worker: int) -> Usage:
    # The server closes its end of a connection a moment after the client.
    time.sleep(0.2)
    return Usage.of(worker)


def _send_all(server: ServerProcess, photos: list[bytes], part: int) -> list[str]:
    problems: list[str] = []
    threads = [
        threading.Thread(target=_send, args=(server.port, photos, part, problems)) for _ in range(NUM_CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def _send(port: int, photos: list[bytes], part: int, problems: list[str]) -> None:
    try:
        for size in _sizes(part):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for number in range(size):
                photo = photos[number % len(photos)]
                reply = exchange(connection, "POST", "/invocations", photo, content_type="image/jpeg")
                if reply.status != 200:
                    problems.append(f"a photo was answered {reply.status}: {reply.body[:200]!r}")
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        problems.append(f"a connection ended with {error!r}")


def _sizes(part: int) -> Iterator[int]:
    """The numbers of requests per connection that add up to ``part``."""
    for start in range(0, part, REQUESTS_PER_CONNECTION):
        yield min(REQUESTS_PER_CONNECTION, part - start)


if __name__ == "__main__":
    main()

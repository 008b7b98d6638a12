"""Soak test: many requests of mixed clients must not grow the server's memory, threads or descriptors.

  make soak-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve_soak --count 20000

A real `serve` on a small model, on this machine only. Clients send small photos with a Content-Length and in chunks,
over connections that they keep and over new ones; one in a hundred requests comes from a client that is not ours.
Prints a table with a line for each tenth, and fails if a request is not answered with 200, or if the worker uses more
at the end than after the warm-up.
"""

import argparse
import itertools
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Usage
from support import foreign
from support.drawing import SHAPES, draw_photo, encode
from support.foreign import Transfer
from support.raw_http import chunked_request, read_reply, request
from support.servers import ServerProcess, export_artifact, running, write_artifact

# Processes of clients: one alone can't keep the server busy.
NUM_PARTS = 2
# A model that takes little of the time: what is tested is around it.
SIDE = 32
REQUESTS_PER_CONNECTION = 250
NUM_SAMPLES = 10
ONE_FOREIGN_IN = 100
# Fluctuations of the allocator; a leak of 200 bytes per request shows after 100,000.
MEMORY_TOLERANCE = 16 * 1024 * 1024
# The pool adds a thread if none is known to be idle; one that has just answered may not be counted yet.
THREADS_TOLERANCE = 4
HEADER = "| requests | requests/s | memory, MB | threads | descriptors |\n|---:|---:|---:|---:|---:|"


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
        export_artifact(write_artifact(base / "model", side=SIDE, architecture="resnet18"), side=SIDE)
        with (
            running(base, base / "log") as server,
            # Spawned: torch has started threads, which do not survive a fork.
            ProcessPoolExecutor(NUM_PARTS, multiprocessing.get_context("spawn")) as callers,
        ):
            print(HEADER)
            result = soak(server, options.count, callers, log=lambda text: print(text, flush=True))
    print(f"{result.num_sent:,} requests in {result.seconds:.0f} s, {result.num_sent / result.seconds:,.0f}/s")
    sys.exit("\n".join(result.judge()[:20]) or None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    return parser.parse_args()


def soak(
    server: ServerProcess, count: int, callers: Executor, *, log: Callable[[str], None] = lambda _text: None
) -> Soak:
    """Send ``count`` requests, sampling the worker's resources after each tenth."""
    [worker] = server.workers()
    part = max(count // NUM_SAMPLES // NUM_PARTS, 1)
    result, start = Soak(0, 0.0), time.monotonic()
    for number in range(NUM_SAMPLES):
        began = time.monotonic()
        for problems in callers.map(_send_mixed, [server.port] * NUM_PARTS, [part] * NUM_PARTS):
            result.problems += problems
        rate = part * NUM_PARTS / (time.monotonic() - began)
        result.num_sent += part * NUM_PARTS
        usage = _settled(worker)
        log(
            f"| {result.num_sent:,} | {rate:,.0f} | {usage.anonymous / 1e6:.1f} | {usage.num_threads} "
            f"| {usage.num_descriptors} |"
        )
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


# Clients


def _send_mixed(port: int, count: int) -> list[str]:
    """Send ``count`` requests, a quarter each in chunks or not, over kept connections or new ones; return problems."""
    problems: list[str] = []
    foreign_count = count // ONE_FOREIGN_IN
    shares = _shares(count - foreign_count, 4)
    threads = [
        threading.Thread(target=_send, args=(port, chunked, keep_alive, share, problems))
        for (chunked, keep_alive), share in zip(itertools.product((False, True), repeat=2), shares, strict=True)
    ]
    threads.append(threading.Thread(target=_send_foreign, args=(port, foreign_count, problems)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def _shares(count: int, num_shares: int) -> list[int]:
    return [count * (number + 1) // num_shares - count * number // num_shares for number in range(num_shares)]


def _photos() -> list[bytes]:
    sizes = [(64, 64), (90, 160), (160, 120), (320, 240)]
    return [encode(draw_photo(*sizes[seed % 4], shape=sorted(SHAPES)[seed % 3], seed=seed)) for seed in range(16)]


def _send(port: int, chunked: bool, keep_alive: bool, count: int, problems: list[str]) -> None:
    build = chunked_request if chunked else request
    messages = [build(photo, Connection=None if keep_alive else "close") for photo in _photos()]
    per_connection = REQUESTS_PER_CONNECTION if keep_alive else 1
    for start in range(0, count, per_connection):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                for number in range(start, min(start + per_connection, count)):
                    sock.sendall(messages[number % len(messages)])
                    reply = read_reply(sock)
                    if reply.status != 200:
                        problems.append(f"a photo was answered {reply.status}: {reply.body[:200]!r}")
        except OSError as error:
            problems.append(f"a connection ended with {error!r}")


def _send_foreign(port: int, count: int, problems: list[str]) -> None:
    transfers = [Transfer(photo, "image/jpeg", number % 2 == 0) for number, photo in enumerate(_photos())]
    clients = (foreign.with_requests, foreign.with_httpx, foreign.with_aiohttp)
    for client, share in zip(clients, _shares(count, len(clients)), strict=True):
        sent = [transfers[number % len(transfers)] for number in range(share)]
        done = client(f"http://127.0.0.1:{port}/invocations", sent)
        problems += [f"{client.__name__} was answered {status}" for status, _ in done.replies if status != 200]


if __name__ == "__main__":
    main()

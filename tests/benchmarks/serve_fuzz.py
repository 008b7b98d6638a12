"""Fuzz test: the server must reject hostile requests, survive them, and free their memory. Reproducible by seed.

  make fuzz-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve_fuzz --count 1000 --seed 7

A real `serve` on a small model with the default limits, on this machine only. First random requests (`attacks`), then
callers by the hundred (`sieges`), while another process pings. Fails on a 5xx response, on a missing response, on a
ping that takes more than 0.2 s (2 s where hundreds connect at one instant), on a replaced worker process, on memory
that is not freed, and if a valid photo is not answered afterwards. A 503 with Retry-After is allowed only in a siege
that exceeds a limit on purpose.
"""

import argparse
import collections
import concurrent.futures
import itertools
import re
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.attacks import Attack, attacks, to_npy
from benchmarks.processes import Usage
from benchmarks.sieges import PING_S, SIEGES
from support.pings import pinging
from support.raw_http import read_all, send
from support.servers import ServerProcess, drawn_photos, export_artifact, running, write_artifact

NUM_CALLERS = 16
# Fewer than the connections of the smallest server that is tested.
NUM_WARM_UP = 40
ANSWER_S = 60.0
MEMORY_RATIO = 1.5


@dataclass
class Fuzz:
    """Responses and problems of a run, and the worker's memory in bytes before and after."""

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    problems: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    seconds: float = 0.0


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        export_artifact(write_artifact(base / "model", architecture="resnet18"))
        with running(base, base / "log") as server:
            problems = _run(server, options.count, options.seed)
    sys.exit("\n".join(problems[:20]) or None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _run(server: ServerProcess, count: int, seed: int) -> list[str]:
    with pinging(server.port) as pings:
        result = fuzz(server, count, seed, log=lambda text: print(text, flush=True))
    print(f"{count:,} hostile requests in {result.seconds:.0f} s")
    print("answers: " + ", ".join(f"{status}: {num:,}" for status, num in sorted(result.statuses.items())))
    print(f"the worker's memory: {result.before / 1e6:.0f} MB before, {result.after / 1e6:.0f} MB after")
    print(pings)
    problems = [*result.problems, *([f"a ping took {pings.max_s:.2f} s"] if pings.max_s > PING_S else [])]
    return problems + besiege(server, result.before)


def fuzz(server: ServerProcess, count: int, seed: int = 0, *, log: Callable[[str], None] = lambda _text: None) -> Fuzz:
    """Send ``count`` attacks, many at a time, and check the server afterwards."""
    [worker] = server.workers()
    result = Fuzz(before=_warm(server, worker))
    start = time.monotonic()
    stream, part = attacks(count, seed), max(count // 10, 1)
    with concurrent.futures.ThreadPoolExecutor(NUM_CALLERS) as callers:
        # In parts, so that not all of them are in memory at once.
        while some := list(itertools.islice(stream, part)):
            for status, problem in callers.map(lambda attack: _send(server.port, attack), some):
                result.statuses[status] += 1
                result.problems += [problem] if problem else []
            log(f"{result.statuses.total():>7,} sent: {Usage.of(worker)}")
    result.seconds = time.monotonic() - start
    result.problems += _look_after(server, worker, result)
    return result


def besiege(server: ServerProcess, memory: int) -> list[str]:
    """Run every siege while another process pings; print a line for each and return the problems.

    Args:
        server: a server with the default limits.
        memory: bytes of the worker before all of them.
    """
    [worker] = server.workers()
    problems: list[str] = []
    for siege in SIEGES:
        with pinging(server.port) as pings:
            start = time.monotonic()
            statuses = siege.run(server)
            seconds = time.monotonic() - start
        answers = ", ".join(f"{status}: {num:,}" for status, num in sorted(statuses.items(), key=str))
        print(f"{siege.name}, {seconds:.1f} s: {answers}; {Usage.of(worker)}; {pings}", flush=True)
        problems += [f"{siege.name}: {status}" for status in statuses if status not in siege.expected]
        problems += [f"{siege.name}: a ping took {pings.max_s:.2f} s"] if pings.max_s > siege.max_ping_s else []
    return problems + _look_after(server, worker, Fuzz(before=memory))


def _warm(server: ServerProcess, worker: int) -> int:
    """Send valid requests of every kind that allocates memory once; return the worker's memory in bytes."""
    with concurrent.futures.ThreadPoolExecutor(NUM_WARM_UP) as callers:
        list(callers.map(server.invoke, drawn_photos(8) * 16))
    server.invoke(to_npy(np.zeros((1, 3, 64, 64), np.float32)), "application/x-npy")
    return Usage.of(worker).anonymous


def _look_after(server: ServerProcess, worker: int, result: Fuzz) -> list[str]:
    good = server.invoke(drawn_photos(1)[0])
    problems = [] if good.status == 200 else [f"a valid photo got {good.status}: {good.body[:200]!r}"]
    if server.ping() != 200:
        problems.append("/ping is not 200")
    if server.workers() != [worker]:
        return [*problems, "the worker died and was replaced"]
    result.after = Usage.of(worker).anonymous
    if result.after > result.before * MEMORY_RATIO:
        problems.append(f"memory grew from {result.before / 1e6:.0f} to {result.after / 1e6:.0f} MB")
    return problems


def _send(port: int, attack: Attack) -> tuple[str, str | None]:
    """Send an attack; return the status, or "none", and the problem with it, if any."""
    try:
        answer = _exchange(port, attack)
    except TimeoutError:
        return "none", f"{attack.kind}: no answer within {ANSWER_S:.0f} s"
    except ConnectionError:
        # The server may reject the request and close before all has been sent.
        answer = b""
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    if match is None:
        is_expected = attack.delivery in ("cut", "gone", "reset")
        return "none", None if is_expected else f"{attack.kind}: no answer"
    status = int(match[1])
    return str(status), f"{attack.kind}: {status}: {answer[-300:]!r}" if status >= 500 and status != 501 else None


def _exchange(port: int, attack: Attack) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as sock:
        step = max(len(attack.data) // 8, 1) if attack.delivery == "slow" else len(attack.data)
        for start in range(0, len(attack.data), step or 1):
            if start:
                time.sleep(0.02)
            if not send(sock, attack.data[start : start + step]):
                break
        match attack.delivery:
            case "gone":
                return b""
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            case "half" | "cut":
                sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


if __name__ == "__main__":
    main()

"""Servers under load: processes measured with wrk in closed loops."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.processes import family, shared_out_memory

START_S = 120
# The platform's timeout of a ping.
PING_TIMEOUT_S = 2.0
HEAD = f"{'':<34} {'conns':>5} {'requests/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'errors':>7} {'MB':>8} {'ready s':>8}"

SCRIPT = """
local file = assert(io.open("{path}", "rb"))
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Rate:
    """One measurement."""

    per_s: float
    p50_ms: float
    p99_ms: float
    num_errors: int


@dataclass(frozen=True)
class Load:
    """The request that wrk sends, its path, and the duration."""

    script: Path
    path: str
    seconds: float

    @classmethod
    def write(cls, folder: Path, name: str, body: bytes, content_type: str, path: str, seconds: float) -> "Load":
        """Write the request's body and the script that makes wrk send it."""
        file, script = folder / f"{name}.body", folder / f"{name}.lua"
        file.write_bytes(body)
        script.write_text(SCRIPT.replace("{path}", str(file)).replace("{content_type}", content_type), encoding="utf-8")
        return cls(script, path, seconds)

    def run(self, port: int, connections: int, seconds: float | None = None) -> Rate:
        """Send requests on ``connections`` connections, each waiting for its response before the next."""
        url = f"http://127.0.0.1:{port}{self.path}"
        duration = f"{max(round(seconds or self.seconds), 1)}s"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "20s", "-s", str(self.script), url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = next(line for line in output.splitlines() if line.startswith("RESULT"))
        num, micros, errors, p50, p99 = map(float, result.split()[1:])
        return Rate(num / micros * 1e6, p50 / 1e3, p99 / 1e3, int(errors))


Running = tuple[subprocess.Popen[bytes], int]


@dataclass(frozen=True)
class Contender:
    """A server to start: ``launch`` returns its process and port; the path ``ping`` responds once it is ready."""

    name: str
    launch: Callable[[], Running]
    ping: str
    load: Load


@dataclass
class Side:
    """A running server and its measurements by number of connections."""

    name: str
    pid: int
    port: int
    load: Load
    ready_s: float
    rss_mb: float = 0.0
    rates: dict[int, list[Rate]] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Send requests until all succeed: TorchServe reports to be healthy before its workers have a model."""
        deadline = time.monotonic() + START_S
        while (rate := self.load.run(self.port, 8, 1)).per_s == 0 or rate.num_errors:
            if time.monotonic() > deadline:
                sys.exit(f"{self.name} does not answer")

    def measure(self, connections: int) -> None:
        """Add one measurement with this number of connections."""
        self.rates.setdefault(connections, []).append(self.load.run(self.port, connections))
        self.rss_mb = shared_out_memory(self.pid) / 1e6

    def lines(self) -> list[str]:
        """The medians as a text table, one line per number of connections."""
        return [
            f"{self.name:<34} {number:>5} {median(one.per_s for one in rates):>10.1f} "
            f"{median(one.p50_ms for one in rates):>9.1f} {median(one.p99_ms for one in rates):>9.1f} "
            f"{sum(one.num_errors for one in rates):>7} {self.rss_mb:>8.0f} {self.ready_s:>8.2f}"
            for number, rates in sorted(self.rates.items())
        ]


@contextmanager
def running(contender: Contender) -> Iterator[Side]:
    """Start a server, warm it up, and stop it at the end."""
    begun = time.perf_counter()
    process, port = contender.launch()
    try:
        _wait(f"http://127.0.0.1:{port}{contender.ping}", process)
        side = Side(contender.name, process.pid, port, contender.load, time.perf_counter() - begun)
        side.warm_up()
        yield side
    finally:
        _end(process)


def best(contenders: list[Contender], connections: int) -> Contender:
    """The setting of a server with the highest throughput."""
    if len(contenders) == 1:
        return contenders[0]
    rates: list[float] = []
    for contender in contenders:
        with running(contender) as side:
            side.measure(connections)
            rates.append(side.rates[connections][0].per_s)
        print(f"tried: {contender.name}: {rates[-1]:.1f} requests/s", flush=True)
    return contenders[rates.index(max(rates))]


def pings_under(load: Load, port: int, connections: int) -> list[float]:
    """Milliseconds of each ``/ping``, on a connection of its own, while the server is saturated.

    Raises:
        OSError: one was not answered with 200 within the platform's timeout.
    """
    thread = threading.Thread(target=load.run, args=(port, connections))
    thread.start()
    pings = []
    while thread.is_alive():
        begun = time.perf_counter()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=PING_TIMEOUT_S).close()
        pings.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.02)
    return pings


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and kill any workers left, since LitServe's outlive it."""
    members = family(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    for member in members:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    sys.exit(f"no answer from {url}")

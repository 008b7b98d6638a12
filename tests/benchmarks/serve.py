"""How fast `serve` answers, beside LitServe and beside the same work without HTTP, all in one run on this machine.

  make bench-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve --seconds 10

ResNet-18 at 224 pixels with random weights, one 500 × 375 JPEG of about 50 KB, callers that each wait for their answer
(wrk, which must be installed). LitServe is installed into .bench/venv; each of its kinds runs in the best of a few
settings, found at 8 connections. The figures are also written to .bench/serve.json. TorchServe is not in the run.
"""

import argparse
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processes import family, shared_out_memory
from classifier.serving.engines import num_cores
from classifier.serving.export import export
from drawing import draw_photo
from servers import drawn_pixels, free_port, start, write_artifact

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BENCH = ROOT / ".bench"
PHOTOS = ROOT.parent / "shared" / "data" / "clothing10" / "test"
SIDE = 224
# Below a hundred, train would not consider integers.
NUM_PHOTOS = 128
CONNECTIONS = (1, 8, 32)
COMPARED = 8
ROUNDS = 5
HEAD = f"{'':<34} {'conns':>5} {'requests/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'errors':>7} {'MB':>8} {'ready s':>8}"
PHOTO_BYTES = 50_000
START_S = 120

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
    """What wrk sends, to where, and for how long."""

    script: Path
    path: str
    seconds: float

    def run(self, port: int, connections: int, seconds: float | None = None) -> Rate:
        url = f"http://127.0.0.1:{port}{self.path}"
        duration = f"{max(round(seconds or self.seconds), 1)}s"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "20s", "-s", str(self.script), url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = next(line for line in output.splitlines() if line.startswith("RESULT"))
        num, micros, errors, p50, p99 = map(float, result.split()[1:])
        return Rate(num / micros * 1e6, p50 / 1e3, p99 / 1e3, int(errors))


@dataclass
class Side:
    """One running server and its figures, by the number of connections."""

    name: str
    pid: int
    port: int
    load: Load
    ready_s: float
    rss_mb: float = 0.0
    rates: dict[int, list[Rate]] = field(default_factory=dict)

    def warm_up(self) -> None:
        self.load.run(self.port, COMPARED, 1)

    def measure(self, connections: int) -> None:
        self.rates.setdefault(connections, []).append(self.load.run(self.port, connections))
        self.rss_mb = shared_out_memory(self.pid) / 1e6

    def lines(self) -> list[str]:
        return [
            f"{self.name:<34} {number:>5} {median(one.per_s for one in rates):>10.1f} "
            f"{median(one.p50_ms for one in rates):>9.1f} {median(one.p99_ms for one in rates):>9.1f} "
            f"{sum(one.num_errors for one in rates):>7} {self.rss_mb:>8.0f} {self.ready_s:>8.2f}"
            for number, rates in sorted(self.rates.items())
        ]


def main() -> None:
    options = _parse()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed. On Debian and Ubuntu: apt install wrk")
    python = install_litserve()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        report = export(write_artifact(base / "model", side=SIDE), *drawn_pixels(NUM_PHOTOS, SIDE))
        print("\n".join(report.lines()))
        photo = make_photo()
        print(f"{num_cores()} cores; a photo of {len(photo):,} bytes; TorchServe is not in the run", flush=True)
        seconds = 2 if options.quick else options.seconds
        figures = compare(base, photo, python, seconds, quick=options.quick)
    BENCH.mkdir(exist_ok=True)
    (BENCH / "serve.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement")
    parser.add_argument("--quick", action="store_true", help="2 seconds each, one round, one setting of LitServe")
    return parser.parse_args()


def install_litserve() -> Path:
    """LitServe beside what the project has installed; the environment's Python."""
    venv, wanted = BENCH / "venv", HERE / "requirements.txt"
    python, installed = venv / "bin" / "python", BENCH / "venv" / "requirements.txt"
    if installed.exists() and installed.read_bytes() == wanted.read_bytes():
        return python
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, venv], check=True)
    command = [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", *_mirror(), wanted]
    subprocess.run(command, check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    # addsitedir, unlike a mere path, also follows the project's own editable install.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "project.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    shutil.copyfile(wanted, installed)
    return python


def _mirror() -> list[str]:
    """Where pip is told to look, uv looks too."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ["--default-index", address] if address else []


def make_photo() -> bytes:
    """500 × 375 pixels in about 50 KB: a real photo where there is one, else a drawn one with grain."""
    path = next(iter(sorted(PHOTOS.rglob("*.jpg"))), None) if PHOTOS.exists() else None
    if path is None:
        grain = np.random.default_rng(0).normal(0, 12, (375, 500, 3))
        pixels = (np.asarray(draw_photo(500, 375), np.float64) + grain).clip(0, 255)
        image = Image.fromarray(pixels.astype(np.uint8))
    else:
        image = Image.open(path).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
    files = (_jpeg(image, quality) for quality in range(40, 101))
    return min(files, key=lambda data: abs(len(data) - PHOTO_BYTES))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def compare(base: Path, photo: bytes, python: Path, seconds: float, *, quick: bool) -> dict[str, Any]:
    """All sides up at once and measured in turn, since a machine's speed drifts: an idle server takes no time."""
    load = Load(_script(base, "ours", photo, "image/jpeg"), "/invocations", seconds)
    document = json.dumps({"image_data": base64.b64encode(photo).decode()}).encode()
    other_load = Load(_script(base, "litserve", document, "application/json"), "/predict", seconds)
    settings = {kind: best_setting(kind, base, python, other_load, quick=quick) for kind in ("torch", "engine")}
    with ExitStack() as stack:

        def up(name: str, launch: Callable[[], Running], ping: str, load: Load) -> Side:
            process, port, ready_s = stack.enter_context(_served(launch, ping))
            side = Side(name, process.pid, port, load, ready_s)
            side.warm_up()
            return side

        sides = [up("ours", lambda: _ours(base), "/ping", load)]
        for kind, (workers, size) in settings.items():
            launch = _litserve(kind, base, python, workers, size)
            sides.append(up(f"LitServe, {kind}, {workers} workers, batch {size}", launch, "/health", other_load))
        ceilings = []
        for _ in range(1 if quick else ROUNDS):
            ceilings.append(ceiling(base, seconds))
            for side in sides:
                side.measure(COMPARED)
        for side in sides:
            for number in set(CONNECTIONS) - {COMPARED}:
                side.measure(number)
        pings = pings_under(load, sides[0].port)
        print(HEAD)
        print("\n".join(line for side in sides for line in side.lines()))
    print(f"{'ceiling: no HTTP':<34} {'':>5} {median(ceilings):>10.1f}")
    ours, torch, engine = sides
    figures = _figures(ours, torch, engine, ceilings)
    print(f"  of {len(pings)} pings at {CONNECTIONS[-1]} connections the slowest took {max(pings):.1f} ms")
    return {**figures, "slowest_ping_ms": round(max(pings), 1)}


def pings_under(load: Load, port: int) -> list[float]:
    """Milliseconds that each ``/ping`` took, on a connection of its own, while the server had all the work it can take.

    Raises:
        OSError: one was not answered, or not with 200.
    """
    thread = threading.Thread(target=load.run, args=(port, CONNECTIONS[-1]))
    thread.start()
    pings = []
    while thread.is_alive():
        begun = time.perf_counter()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
        pings.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.02)
    return pings


def _script(base: Path, name: str, body: bytes, content_type: str) -> Path:
    (base / f"{name}.body").write_bytes(body)
    script = base / f"{name}.lua"
    script.write_text(
        SCRIPT.replace("{path}", str(base / f"{name}.body")).replace("{content_type}", content_type), encoding="utf-8"
    )
    return script


def _figures(ours: Side, torch: Side, engine: Side, ceilings: Sequence[float]) -> dict[str, Any]:
    rates = ours.rates[COMPARED]
    ratios = {
        "vs_litserve": _ratio(rates, torch.rates[COMPARED]),
        "vs_litserve_same_engine": _ratio(rates, engine.rates[COMPARED]),
        "vs_ceiling": median(one.per_s / top for one, top in zip(rates, ceilings, strict=True)),
        "p99_over_p50": median(one.p99_ms / one.p50_ms for one in rates),
        "ready_s": ours.ready_s,
        "rss_mb": ours.rss_mb,
    }
    print(f"\nours at {COMPARED} connections, medians of {len(ceilings)} rounds:")
    for name, value in ratios.items():
        print(f"  {name:<24} {value:8.2f}")
    return {name: round(value, 3) for name, value in ratios.items()}


def _ratio(ours: Sequence[Rate], others: Sequence[Rate]) -> float:
    """The median of the rounds' ratios; a server that answered nothing stops the comparison."""
    if any(one.per_s == 0 for one in others):
        sys.exit("LitServe answered nothing in a round: the machine is too busy to compare on, or its log says why")
    return median(one.per_s / other.per_s for one, other in zip(ours, others, strict=True))


def ceiling(base: Path, seconds: float) -> float:
    """Photos a second when all cores decode and infer, and nothing else is done."""
    command = [sys.executable, "-m", "benchmarks.ceiling", str(base / "model"), str(base / "ours.body"), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


Running = tuple[subprocess.Popen[bytes], int]


@contextmanager
def _served(launch: Callable[[], Running], ping: str) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    begun = time.perf_counter()
    process, port = launch()
    try:
        _wait(f"http://127.0.0.1:{port}{ping}", process)
        yield process, port, time.perf_counter() - begun
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; then see that its workers have, too, since LitServe's outlive their server."""
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


def _ours(base: Path) -> Running:
    server = start(base, base / "ours.log")
    return server.process, server.port


def best_setting(kind: str, base: Path, python: Path, load: Load, *, quick: bool) -> tuple[int, int]:
    """The number of workers and the batch size by which LitServe answers most."""
    settings = [(num_cores(), 1)] if quick else [(1, 1), (num_cores(), 1), (1, 8), (num_cores(), 4)]
    if len(settings) == 1:
        return settings[0]
    rates = {one: _probe(_litserve(kind, base, python, *one), load) for one in settings}
    for (workers, size), rate in rates.items():
        print(f"LitServe, {kind}, {workers} workers, batch {size}: {rate:.1f} requests/s", flush=True)
    return max(rates, key=lambda one: rates[one])


def _probe(launch: Callable[[], Running], load: Load) -> float:
    with _served(launch, "/health") as (_, port, _):
        load.run(port, COMPARED, 1)
        return load.run(port, COMPARED, max(load.seconds / 2, 2)).per_s


def _litserve(kind: str, base: Path, python: Path, workers: int, size: int) -> Callable[[], Running]:
    def launch() -> Running:
        port = free_port()
        command: Sequence[str] = [str(python), str(HERE / "litserve_side.py"), kind, str(base / "model")]
        command = [*command, "--port", str(port), "--workers", str(workers), "--batch", str(size)]
        with (base / "litserve.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT), port

    return launch


if __name__ == "__main__":
    main()

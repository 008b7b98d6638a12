"""Throughput and latency of `serve` beside LitServe, TorchServe and the same work without HTTP, in one run.

  make bench-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve --seconds 10
  BEFORE=/path/to/checkout make bench-serve    # beside the `serve` of another checkout instead

ResNet-18 at 224 pixels with random weights, one 500 × 375 JPEG of about 50 KB, closed-loop clients (wrk, which must be
installed). The other servers run with the best of a few settings, found at 8 connections. All servers stay up and are
measured in turn, round after round; a ratio is the median of the rounds' ratios, since a machine's speed drifts.
Figures at 8 connections are also written to .bench/serve.json. Fails if a ``/ping`` under load takes longer than the
platform's two seconds.
"""

import argparse
import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import others
from benchmarks.checkouts import checkout_from_environment, compare_checkouts
from benchmarks.sides import HEAD, Contender, Load, Rate, Running, Side, best, pings_under, running
from classifier.engine.selection import export
from classifier.host import cpu_has_bf16, cpu_has_int8, num_cores
from support.drawing import draw_photo
from support.servers import drawn_pixels, start, write_artifact

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / ".bench"
PHOTOS = ROOT.parent / "shared" / "data" / "clothing10" / "test"
SIDE = 224
NUM_PHOTOS = 64
CONNECTIONS = (1, 8, 32)
COMPARED = 8
ROUNDS = 5
PHOTO_BYTES = 50_000


def main() -> None:
    options = _parse()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed. On Debian and Ubuntu: apt install wrk")
    before = checkout_from_environment()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        # Whatever random weights lose: the fastest that this CPU supports.
        fastest = "int8" if cpu_has_int8() else "bf16" if cpu_has_bf16() else "fp32"
        report = export(
            write_artifact(base / "model", side=SIDE, architecture="resnet18"),
            *drawn_pixels(NUM_PHOTOS, SIDE),
            cpu_engine=fastest,
        )
        print("\n".join(report.lines()))
        photo = make_photo()
        print(f"{num_cores()} cores; a photo of {len(photo):,} bytes", flush=True)
        seconds, rounds = (2, 1) if options.quick else (options.seconds, ROUNDS)
        if before:
            figures = compare_checkouts(base, before, photo, seconds, rounds)
        else:
            python = others.install(BENCH / "venv")
            contenders = choose(base, photo, python, seconds, quick=options.quick)
            figures = compare(base, contenders, seconds, rounds)
    BENCH.mkdir(exist_ok=True)
    (BENCH / ("before.json" if before else "serve.json")).write_text(
        json.dumps(figures, indent=2) + "\n", encoding="utf-8"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="per measurement")
    parser.add_argument("--quick", action="store_true", help="2 seconds each, one round, one setting per server")
    return parser.parse_args()


def make_photo() -> bytes:
    """A JPEG of 500 × 375 pixels and about 50 KB: a real photo if available, else a drawn one with noise."""
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


def choose(base: Path, photo: bytes, python: Path, seconds: float, *, quick: bool) -> dict[str, Contender]:
    """`serve`, and each of the other servers with its best setting."""
    ours = Load.write(base, "ours", photo, "image/jpeg", "/invocations", seconds)
    document = json.dumps({"image_data": base64.b64encode(photo).decode()}).encode()
    litserve = Load.write(base, "litserve", document, "application/json", "/predict", seconds)
    cores = num_cores()
    settings = [(cores, 1)] if quick else [(1, 1), (cores, 1), (1, 8), (cores, 4)]
    found = {"ours": Contender("ours", lambda: _ours(base), "/ping", ours)}
    for kind in ("torch", "engine"):
        tried = [
            others.litserve(kind, base / "model", python, litserve, workers=workers, batch=batch)
            for workers, batch in settings
        ]
        found[f"litserve {kind}"] = best(tried, COMPARED)
    if others.has_java():
        store = others.archive(base / "torchserve", python)
        load = Load.write(base, "torchserve", photo, "image/jpeg", "/predictions/resnet18", seconds)
        numbers = sorted({workers for workers, _ in settings})
        found["torchserve"] = best([others.torchserve(store, python, load, workers=one) for one in numbers], COMPARED)
    else:
        print("TorchServe is left out: it needs Java")
    return found


def _ours(base: Path) -> Running:
    server = start(base, base / "ours.log")
    return server.process, server.port


def compare(base: Path, contenders: dict[str, Contender], seconds: float, rounds: int) -> dict[str, float]:
    """Measure all servers in turn while all are up; an idle one takes no CPU time from the others."""
    with ExitStack() as stack:
        sides = {name: stack.enter_context(running(contender)) for name, contender in contenders.items()}
        ceilings: list[tuple[float, float]] = []
        for _ in range(rounds):
            ceilings.append((ceiling(base, seconds, threads=1), ceiling(base, seconds, threads=2)))
            for side in sides.values():
                side.measure(COMPARED)
        for side in sides.values():
            for number in sorted({*CONNECTIONS} - {COMPARED}):
                side.measure(number)
        ours = sides["ours"]
        pings = pings_under(contenders["ours"].load, ours.port, CONNECTIONS[-1])
    print(HEAD)
    print("\n".join(line for side in sides.values() for line in side.lines()))
    for threads, rates in enumerate(zip(*ceilings, strict=True), start=1):
        print(f"{f'ceiling: no HTTP, {threads} a core':<34} {'':>5} {median(rates):>10.1f}")
    return _figures(sides, ceilings, pings)


def _figures(sides: dict[str, Side], ceilings: Sequence[tuple[float, float]], pings: Sequence[float]) -> dict[str, Any]:
    ours = sides["ours"]
    rates = ours.rates[COMPARED]
    figures = {
        "vs_litserve": _ratio(rates, sides["litserve torch"]),
        "vs_litserve_same_engine": _ratio(rates, sides["litserve engine"]),
        "vs_ceiling": median(one.per_s / top for one, (top, _) in zip(rates, ceilings, strict=True)),
        "vs_ceiling_two_threads": median(one.per_s / top for one, (_, top) in zip(rates, ceilings, strict=True)),
        "p99_over_p50": median(one.p99_ms / one.p50_ms for one in rates),
        "ready_s": ours.ready_s,
        "rss_mb": ours.rss_mb,
        "slowest_ping_ms": max(pings),
    }
    if "torchserve" in sides:
        figures["vs_torchserve"] = _ratio(rates, sides["torchserve"])
    print(
        f"\nours at {COMPARED} connections, medians of {len(ceilings)} rounds; {len(pings)} pings at {CONNECTIONS[-1]}:"
    )
    for name, value in figures.items():
        print(f"  {name:<24} {value:8.2f}")
    return {name: round(value, 3) for name, value in figures.items()}


def _ratio(ours: Sequence[Rate], other: Side) -> float:
    """The median of the rounds' ratios; exits if the other server failed in a round."""
    rates = other.rates[COMPARED]
    if any(one.per_s == 0 or one.num_errors for one in rates):
        sys.exit(f"{other.name} had errors or no responses in a round; see the server's log, or use an idle machine")
    return median(one.per_s / rate.per_s for one, rate in zip(ours, rates, strict=True))


def ceiling(base: Path, seconds: float, *, threads: int) -> float:
    """Photos per second of decoding and inference alone, with ``threads`` threads per core."""
    command = [sys.executable, "-m", "benchmarks.ceiling", base / "model", base / "ours.body", str(seconds)]
    command.append(str(threads))
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()

"""`serve` of this checkout beside that of another one, in one run: requests per second, and `/ping` under full load.

  BEFORE=/path/to/checkout make bench-serve

Both serve the same artifact with the same dependencies if the other checkout has no .venv. Every round starts both
anew, since two servers of one program differ from start to start, and measures them in turn, each first in every other
round. A ratio is the median of the rounds' ratios.
"""

import io
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.sides import Contender, Load, Running, Side, pings_under, running
from support.drawing import draw_photo
from support.servers import start

CONNECTIONS = 8
SATURATING = 32
SMALL_BYTES = 680


@dataclass
class Measured:
    """One checkout: requests per second of each round by body, and percentiles of its pings."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    pings_ms: list[list[float]] = field(default_factory=list)

    def measure(self, side: Side, loads: dict[str, Load]) -> None:
        """Add a round with a running server.

        Raises:
            SystemExit: a request failed.
        """
        for name, load in loads.items():
            rate = load.run(side.port, CONNECTIONS)
            if rate.num_errors or not rate.per_s:
                sys.exit(f"{side.name} had errors or no responses; see its log, or use an idle machine")
            self.rates.setdefault(name, []).append(rate.per_s)
        self.pings_ms.append(pings_under(side.load, side.port, SATURATING))


def compare_checkouts(base: Path, before: Path, photo: bytes, seconds: float, rounds: int) -> dict[str, float]:
    """Measure both checkouts' servers on one artifact, and print the comparison.

    Args:
        base: laid out as /opt/ml, with the artifact in ``model``.
        before: the root of the other checkout.
        photo: a JPEG.
        seconds: of each measurement.

    Returns:
        Ours ÷ before by figure.
    """
    bodies = {"JPEG": photo, "PNG": make_small_photo()}
    loads = {
        f"requests/s, {name} of {len(body):,} bytes": Load.write(
            base, name, body, f"image/{name.lower()}", "/invocations", seconds
        )
        for name, body in bodies.items()
    }
    jpeg = next(iter(loads.values()))
    contenders = (
        Contender("ours", lambda: _launch(base, base / "ours.log"), "/ping", jpeg),
        Contender("before", lambda: _launch(base, base / "before.log", before), "/ping", jpeg),
    )
    measured = [Measured() for _ in contenders]
    for number in range(rounds):
        with ExitStack() as stack:
            sides = [stack.enter_context(running(one)) for one in contenders]
            for one, side in list(zip(measured, sides, strict=True))[:: -1 if number % 2 else 1]:
                one.measure(side, loads)
    return _report(*measured)


def make_small_photo() -> bytes:
    """A drawn PNG of about 680 bytes, whose decoding takes next to nothing."""
    files = []
    for side in range(8, 64):
        buffer = io.BytesIO()
        draw_photo(side, side).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return min(files, key=lambda data: abs(len(data) - SMALL_BYTES))


def _launch(base: Path, log: Path, checkout: Path | None = None) -> Running:
    if checkout is None:
        server = start(base, log)
    else:
        own = checkout / ".venv" / "bin" / "python"
        program = [str(own if own.exists() else Path(sys.executable)), "-m", "classifier.serve"]
        server = start(base, log, program=program, PYTHONPATH=str(checkout / "container"))
    return server.process, server.port


def _report(ours: Measured, before: Measured) -> dict[str, float]:
    ratios = {}
    print(f"\n{'':<34} {'ours':>9} {'before':>9} {'ours ÷ before':>14}")
    for name, rates in ours.rates.items():
        ratios[name] = median(mine / other for mine, other in zip(rates, before.rates[name], strict=True))
        print(f"{name:<34} {median(rates):>9.1f} {median(before.rates[name]):>9.1f} {ratios[name]:>14.3f}")
    for title, percentile in (("median", 50), ("p99", 99)):
        pairs = [
            [float(np.percentile(pings, percentile)) for pings in round_]
            for round_ in zip(ours.pings_ms, before.pings_ms, strict=True)
        ]
        mine, other = (median(column) for column in zip(*pairs, strict=True))
        name = f"{title} of /ping in ms"
        ratios[name] = median(one / two for one, two in pairs)
        print(f"{name:<34} {mine:>9.1f} {other:>9.1f} {ratios[name]:>14.3f}")
    num_pings = [sum(map(len, one.pings_ms)) for one in (ours, before)]
    print(
        f"{len(ours.pings_ms)} starts of each, at {CONNECTIONS} connections; "
        f"{num_pings[0]} and {num_pings[1]} pings at {SATURATING} connections with the JPEG"
    )
    return ratios


def checkout_from_environment(program: str = "serve.py") -> Path | None:
    """The checkout that ``BEFORE`` names, or None.

    Args:
        program: the module that is measured.

    Raises:
        SystemExit: it is no checkout of this project.
    """
    text = os.environ.get("BEFORE", "")
    if not text:
        return None
    checkout = Path(text).resolve()
    if not (checkout / "container" / "classifier" / program).is_file():
        sys.exit(f"BEFORE={text} is not a checkout of this project: it has no container/classifier/{program}")
    return checkout

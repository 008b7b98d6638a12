"""Long work, shown: a bar on a terminal, a line now and then elsewhere. All of it on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

_EVERY_S = 10.0


@contextmanager
def progress(
    what: str,
    total: int | None,
    *,
    unit: str = "photos",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], object]]:
    """Yields what to call with the number of pieces done since the last call. ``unit="B"`` is shown as kB, MB, GB."""
    stream = stream or sys.stderr
    assert stream is not None, "a program has a standard error"
    if stream.isatty():
        is_bytes = unit == "B"
        with tqdm(
            total=total, desc=what, unit=unit if is_bytes else f" {unit}", unit_scale=is_bytes, leave=False, file=stream
        ) as bar:
            yield bar.update
    else:
        yield _Lines(what, total, unit, stream, clock).advance


class _Lines:
    """A line every ten seconds, for a log."""

    def __init__(self, what: str, total: int | None, unit: str, stream: TextIO, clock: Callable[[], float]) -> None:
        self._what, self._total, self._unit, self._stream, self._clock = what, total, unit, stream, clock
        self._done = 0
        self._started = self._told = clock()

    def advance(self, num: int) -> None:
        self._done += num
        now = self._clock()
        if now - self._told >= _EVERY_S:
            self._told = now
            print(self._line(self._done / (now - self._started)), file=self._stream, flush=True)

    def _line(self, rate: float) -> str:
        done = amount(self._done, self._unit)
        if self._total:
            done = f"{self._done / self._total:.0%} of {amount(self._total, self._unit)}"
        return f"{self._what}: {done}, {amount(round(rate), self._unit)}/s"


def amount(number: float, unit: str) -> str:
    """``12,345 photos``, or for bytes the nearest of kB, MB, GB and TB."""
    if unit != "B":
        return f"{number:,} {unit}"
    for name in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {name}"
        number /= 1000
    return f"{number:,.3g} TB"

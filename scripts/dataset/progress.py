"""Progress of long operations on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

_INTERVAL_S = 10.0


@contextmanager
def progress(
    description: str,
    total: int | None,
    *,
    unit: str = "photos",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], object]]:
    """Show the progress of an operation.

    Args:
        total: how many units there are, if that is known.
        unit: what is counted, in plural; ``B`` for bytes, which are shown as kB, MB or GB.

    Yields:
        A function that takes the number of units completed since the last call.
    """
    stream = stream or sys.stderr
    assert stream is not None, "sys.stderr is open in a command"
    if stream.isatty():
        is_bytes = unit == "B"
        label = unit if is_bytes else f" {unit}"
        with tqdm(total=total, desc=description, unit=label, unit_scale=is_bytes, leave=False, file=stream) as bar:
            yield bar.update
    else:
        yield _Lines(description, total, unit, stream, clock).advance


class _Lines:
    """Progress as lines of a log."""

    def __init__(
        self, description: str, total: int | None, unit: str, stream: TextIO, clock: Callable[[], float]
    ) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._stream, self._clock = stream, clock
        self._done = 0
        self._start = self._last_line = clock()

    def advance(self, num: int) -> None:
        self._done += num
        now = self._clock()
        if now - self._last_line >= _INTERVAL_S:
            self._last_line = now
            print(self._line(self._done / (now - self._start)), file=self._stream, flush=True)

    def _line(self, rate: float) -> str:
        done = format_amount(self._done, self._unit)
        if self._total:
            done = f"{self._done / self._total:.0%} of {format_amount(self._total, self._unit)}"
        return f"{self._description}: {done}, {format_amount(round(rate), self._unit)}/s"


def format_amount(number: float, unit: str) -> str:
    """Format ``12,345 photos``, or bytes as kB, MB, GB or TB with three digits."""
    if unit != "B":
        return f"{number:,} {unit}"
    for name in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {name}"
        number /= 1000
    return f"{number:,.3g} TB"

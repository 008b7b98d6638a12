"""What a training tells the person who watches, and what the platform tells the training: stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

from classifier.errors import Stopped


class Console:
    """Lines on standard output, progress bars on standard error when that is a terminal."""

    def log(self, line: str) -> None:
        print(line, flush=True)

    def warn(self, line: str) -> None:
        self.log(f"warning: {line}")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], object]]:
        """A bar that is gone when done. Yields what to call after each piece."""
        with tqdm(total=total, desc=what, leave=False, disable=not sys.stderr.isatty()) as bar:
            yield bar.update


class StopSignal:
    """SIGTERM, which the platform sends 120 s before it kills, or Ctrl-C; a second one stops at once."""

    def __init__(self) -> None:
        self.received: str | None = None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """
        Raises:
            Stopped: a signal has come.
        """
        if self.received:
            raise Stopped(self.received)


class Watch:
    """Long work, watched: shown on the console, and left between two pieces when a stop was asked for."""

    def __init__(self, console: Console, stop: StopSignal) -> None:
        self.console = console
        self._stop = stop

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Yields what to call after each piece; it raises :class:`Stopped` when a stop was asked for."""
        self._stop.check()
        with self.console.progress(what, total) as advance:

            def step() -> None:
                advance()
                self._stop.check()

            yield step

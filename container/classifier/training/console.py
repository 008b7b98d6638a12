"""Console output, progress bars and stop signals of a training job."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from tqdm import tqdm

from classifier.errors import Stopped
from classifier.signals import STOP_SIGNALS, end_process


class Console:
    """Lines on standard output, and progress bars on standard error if that is a terminal."""

    def log(self, line: str) -> None:
        """Print a line at once: the platform reads metrics from it."""
        print(line, flush=True)

    def warn(self, line: str) -> None:
        """Print a line that begins with ``warning:``."""
        self.log(f"warning: {line}")

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[], object]]:
        """Show a progress bar that disappears at the end. Yields a function to call after each item."""
        with tqdm(total=total, desc=description, leave=False, disable=not sys.stderr.isatty()) as bar:
            yield bar.update


class SilentConsole(Console):
    """The console of a rank other than 0, whose lines and warnings rank 0 prints as well."""

    def log(self, line: str) -> None:
        """Print nothing."""

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[], object]]:
        """Show nothing."""
        del description, total
        yield lambda: None


class StopCheck(Protocol):
    """What may stop long work."""

    @property
    def received(self) -> str | None:
        """The name of the signal that this process received."""
        ...

    def check(self) -> None:
        """Raise if a stop was requested.

        Raises:
            Stopped: with the reason.
        """


class StopSignal:
    """SIGTERM, which the platform sends 120 s before SIGKILL, or Ctrl-C. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.received: str | None = None

    def listen(self) -> None:
        """Install the signal handlers, and unblock the signals, with which a rank starts blocked."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received:
            # Not by the default action, which the kernel withholds from process 1.
            end_process(number)
        self.received = signal.Signals(number).name

    def check(self) -> None:
        """Raise if a signal was received.

        Raises:
            Stopped: with the signal's name.
        """
        if self.received:
            raise Stopped(self.received)


class Progress:
    """Progress of long work: shown on the console, and interrupted between two items when a stop is requested."""

    def __init__(self, console: Console, stop: StopCheck) -> None:
        self.console = console
        self.stop = stop

    def check(self) -> None:
        """Raise if a stop was requested.

        Raises:
            Stopped: with the signal's name.
        """
        self.stop.check()

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a progress bar. Yields a function to call after each item.

        Raises:
            Stopped: from this method or from the function, if a stop was requested.
        """
        self.stop.check()
        with self.console.progress(description, total) as advance:

            def step() -> None:
                advance()
                self.stop.check()

            yield step

"""Sharing one machine: cores per trial, exclusive use of a folder, and interrupts deferred to a safe point."""

import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from classifier.errors import ConfigError
from classifier.host import num_cores


def cores_per_trial(parallel: int) -> int:
    """Return each trial's share of the cores; oversubscribed OpenMP thread pools stall each other."""
    return max(1, num_cores() // parallel)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other tuning jobs out of a folder: they would take the running trials for leftovers, and stop them.

    Raises:
        ConfigError: another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tune.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another tune.py is running in {folder}: wait for it, or choose another --output"
            ) from None
        yield


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Record the first SIGINT or SIGTERM instead of raising; a second one raises KeyboardInterrupt at once.

    Yields:
        A function that returns whether a signal has arrived.
    """
    received: list[int] = []

    def record(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each in previous:
            signal.signal(each, signal.default_int_handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, record)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""This machine, shared: cores among trials, a folder by one command at a time, and an end at a good moment."""

import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from classifier.errors import ConfigError
from classifier.host import num_cores


def share_of_cores(parallel: int) -> int:
    """Cores for each trial: programs whose threads wait for each other come to a standstill where they share cores."""
    return max(1, num_cores() // parallel)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second tuning out of a folder, whose trials it would take for leftovers.

    Raises:
        ConfigError: one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tune.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another tune.py is at work in {folder}: wait for it, or name another --output"
            ) from None
        yield


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are noted, to be asked for between two steps; a second one interrupts at once."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each in before:
            signal.signal(each, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

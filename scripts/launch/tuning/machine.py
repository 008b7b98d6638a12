"""This machine, shared: cores among trials, and a folder by one command at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.errors import ConfigError


def share_of_cores(parallel: int) -> int:
    """Cores for each trial: programs whose threads wait for each other come to a standstill where they share cores."""
    return max(1, len(os.sched_getaffinity(0)) // parallel)


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

"""Processes that outlive their parent, and whether they still run.

Each holds a lock on a file as long as it lives, whatever becomes of it: a number of a process may be given anew, a lock
may not.
"""

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_LOCK_DESCRIPTOR = 3


def start(command: Sequence[str], *, lock: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Start a program in a session of its own; its output is added to ``log``. Its process id."""
    held = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, held, _LOCK_DESCRIPTOR),
        ]
        return os.posix_spawnp(command[0], list(command), dict(environment), file_actions=actions, setsid=True)
    finally:
        os.close(held)


def is_alive(lock: Path) -> bool:
    """Whether the program that was started with this lock, or one that it started, still runs."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def exit_code(pid: int) -> int | None:
    """The exit code of a child of this process, or None as long as it runs. A signal that ended it is negative."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def reap(pid: int) -> None:
    """Leave no zombie of a program, in case that this very process started it."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a program that :func:`start` started, and to all that it started itself."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def write_number(path: Path, pid: int) -> None:
    path.write_text(str(pid), encoding="ascii")


def read_number(path: Path) -> int | None:
    """A process id that was written down, or None as long as it was not."""
    try:
        return int(path.read_text(encoding="ascii") or 0) or None
    except FileNotFoundError:
        return None

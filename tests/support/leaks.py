"""Processes that a test leaves running."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# A terminated process may take a moment to end on a busy machine.
GRACE_S = 10.0

# Python's own helpers, which live as long as the process that started them.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def children() -> set[int]:
    """PIDs of this process's children that have not ended."""
    found = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in _read(listing).split()}
    return {pid for pid in found if not _is_over(pid)}


def descendants(variable: str, value: str) -> set[int]:
    """PIDs of the other processes with an environment variable: children of children too, and detached ones.

    Only what this process may look into is found, and only what was started with the variable set.
    """
    wanted = f"{variable}={value}".encode()
    environments = {int(path.parent.name): _read_bytes(path) for path in Path("/proc").glob("[0-9]*/environ")}
    found = {pid for pid, environment in environments.items() if wanted in environment.split(b"\0")}
    return {pid for pid in found - {os.getpid()} if not _is_over(pid)}


def end(find: Callable[[], set[int]]) -> str:
    """Kill the processes that are still there after a moment, and return a line for each.

    A line holds the PID, the command and the test that started the process.
    """
    deadline = time.monotonic() + GRACE_S
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = _describe(left)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return "\n".join(lines)


def _describe(pids: set[int]) -> list[str]:
    lines = []
    for pid in sorted(pids):
        command = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
        environment = _read_bytes(Path(f"/proc/{pid}/environ")).split(b"\0")
        test = next((one.decode() for one in environment if one.startswith(b"PYTEST_CURRENT_TEST=")), "")
        lines.append(f"{pid}: {command} {test}")
    return lines


def _is_over(pid: int) -> bool:
    """Whether a process has ended, is about to be reaped, or is one of Python's helpers."""
    command = _read(Path(f"/proc/{pid}/cmdline"))
    # The kernel gives a zombie an empty command line.
    return not command or any(helper in command for helper in _HELPERS)


def _read(path: Path) -> str:
    return _read_bytes(path).decode(errors="replace")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

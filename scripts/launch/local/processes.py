"""Processes in the foreground, processes that outlive their parent, and supervisors among the latter.

Each that outlives its parent holds a file lock while it runs, which shows whether it is alive: PIDs are reused, locks
are not. Its process ID is beside the lock, so that any process can end it, also after the one that started it was
killed.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

LOOPBACK = "127.0.0.1"
_SCRIPTS = Path(__file__).resolve().parents[2]
_LOCK_DESCRIPTOR = 3
_POLL_S = 0.01
# The program writes its own ID before it begins: written here, it would be unknown after a kill at the wrong moment.
_START = 'echo $$ > "$0" && exec "$@"'


def run_in_foreground(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, kill: Callable[[], object] | None = None
) -> int:
    """Run a program with this one's standard streams to its end, and return its exit code, 128 + n for a signal n.

    The first Ctrl-C or SIGTERM is forwarded to the program, which decides how to end.

    Args:
        kill: called on the second signal, which otherwise is forwarded as well.
    """
    # In its own session, so that the terminal's Ctrl-C reaches the program once, from here.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        if kill is None or len(received) == 1:
            process.send_signal(number)
        else:
            kill()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def start_process(command: Sequence[str], *, lock: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Start a program in its own session; its output is appended to ``log``.

    SIGINT has its default action there, even if this process ignores it, as background jobs of a shell script do.

    Args:
        lock: a file that the program and its children keep locked while they run; its process ID is in a file of the
            same name with the suffix ``.pid``.

    Returns:
        The process ID.
    """
    pid_file = lock.with_suffix(".pid")
    pid_file.unlink(missing_ok=True)
    held = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, held, _LOCK_DESCRIPTOR),
        ]
        return os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _START, str(pid_file), *command],
            dict(environment),
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGINT],
        )
    finally:
        os.close(held)


def is_alive(lock: Path) -> bool:
    """Return whether the program started with this lock, or one of its children, still runs."""
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
    """Return a child's exit code, negative for the signal that ended it, or None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def reap(pid: int) -> None:
    """Remove the zombie of a process that has ended, in case it was a child of this one."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a program that :func:`start_process` started and to its children."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def running_pid(lock: Path) -> int | None:
    """Return the process ID of the program that was started with this lock, or None if it has ended."""
    while is_alive(lock):
        with suppress(FileNotFoundError):
            if text := lock.with_suffix(".pid").read_text(encoding="ascii").strip():
                return int(text)
        # It is just being started.
        time.sleep(_POLL_S)
    return None


def start_supervisor(module: str, *arguments: str, folder: Path) -> None:
    """Start a module of ``launch.local`` that runs one job, with its lock and its log in the job's folder."""
    paths = [str(_SCRIPTS), os.environ.get("PYTHONPATH", "")]
    start_process(
        [sys.executable, "-m", module, *arguments],
        lock=folder / "supervisor.lock",
        log=folder / "supervisor.log",
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def has_lost_supervisor(folder: Path) -> bool:
    """Return whether a job's supervisor was started and has ended."""
    pid_file = folder / "supervisor.pid"
    # Without a process ID it is just being started; with an empty one it could not start.
    if not pid_file.exists() or is_alive(folder / "supervisor.lock"):
        return False
    if text := pid_file.read_text(encoding="ascii").strip():
        reap(int(text))
    return True


def free_port(host: str) -> int:
    """Return a port of an address on which nothing listens.

    Raises:
        OSError: it is no address of this machine.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]

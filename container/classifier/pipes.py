"""The end of a program whose reader has gone, as after ``| head``."""

import os
import select
import signal
import sys
from contextlib import suppress
from typing import TextIO

# What a shell shows for a program that SIGPIPE ends, as it ends cat or grep. Python ignores the signal, for the sake
# of sockets, and raises BrokenPipeError instead.
CLOSED_PIPE = 128 + signal.SIGPIPE


def has_lost_reader() -> bool:
    """Whether standard output or standard error is a pipe that nothing reads from any more."""
    return any(map(_is_closed, (sys.stdout, sys.stderr)))


def leave_closed_pipe() -> int:
    """Return the exit code of a program whose reader has gone.

    Python, which flushes to the pipe once more at exit, flushes to the null device from now on.
    """
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if _is_closed(stream):
                os.dup2(null, stream.fileno())
        os.close(null)
    return CLOSED_PIPE


def _is_closed(stream: TextIO | None) -> bool:
    try:
        descriptor = -1 if stream is None else stream.fileno()
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))

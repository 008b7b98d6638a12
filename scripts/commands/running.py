"""The run of a command: errors as one line, Ctrl-C, a reader that has gone, and the exit code."""

import sys
from collections.abc import Callable
from pathlib import Path

from classifier.errors import UserError
from classifier.pipes import has_lost_reader, leave_closed_pipe
from commands import interrupts

INTERRUPTED = 130  # what a shell shows for a program that SIGINT ends


def run_command(name: str, run: Callable[[], int], *, on_interrupt: str = "stopped", place: Path | None = None) -> int:
    """Run a command and return its exit code.

    An error that the user can fix is printed in one line, without a traceback.

    Args:
        name: the command's name, which begins its messages.
        on_interrupt: what the message after Ctrl-C says.
        place: what an error of the file system that names no file is about, such as a full disk.
    """
    with interrupts.noted():
        try:
            return _run(name, run, on_interrupt, place)
        except BrokenPipeError:
            # By an error message.
            return leave_closed_pipe()


def _run(name: str, run: Callable[[], int], on_interrupt: str, place: Path | None) -> int:
    try:
        code = run()
        # Here rather than at exit, where the error of a closed pipe can't be handled.
        sys.stdout.flush()
        interrupts.check()
    except UserError as error:
        _print(name, str(error).removeprefix(f"{name}: "))
    except KeyboardInterrupt:
        return _stop(name, on_interrupt)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and has_lost_reader():
            return leave_closed_pipe()
        _print(name, ": ".join(map(str, filter(None, (error.filename or place, error.strerror or error)))))
    except Exception:
        # CPython 3.11 may replace a KeyboardInterrupt by the error that is being raised.
        if interrupts.is_noted():
            return _stop(name, on_interrupt)
        raise
    else:
        return code
    return INTERRUPTED if interrupts.is_noted() else 1


def _stop(name: str, message: str) -> int:
    with interrupts.finishing():
        _print(name, message)
    return INTERRUPTED


def _print(name: str, message: str) -> None:
    print(f"{name}: {message}", file=sys.stderr, flush=True)

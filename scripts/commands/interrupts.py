"""Ctrl-C that no library can lose.

Python raises KeyboardInterrupt wherever the main thread is at that moment. Raised in a finalizer, such as that of an
HTTP response, the exception is dropped. Raised in ``list.index``, which botocore calls under ``except ValueError``,
CPython 3.11 may replace it by the ValueError. So the handler notes the signal besides raising, and what waits or loops
calls :func:`check`.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class _State:
    is_noted: bool = False
    is_deferred: bool = False


# Of the process, as signal handlers are.
_state = _State()


@contextmanager
def noted() -> Iterator[None]:
    """Note each SIGINT besides raising KeyboardInterrupt.

    Shell scripts start background commands with SIGINT ignored; they receive it all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python runs handlers in the main thread alone.
        yield
        return
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def report(problem: "sys.UnraisableHookArgs") -> None:
        # A noted SIGINT needs no traceback of the finalizer in which it was raised.
        if not isinstance(problem.exc_value, KeyboardInterrupt):
            hook(problem)

    sys.unraisablehook = report
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook
        _state.is_noted = False


def is_noted() -> bool:
    """Whether a SIGINT has arrived that no :func:`finishing` has dealt with."""
    return _state.is_noted


def check() -> None:
    """Raise if a SIGINT has arrived, its exception perhaps lost.

    Raises:
        KeyboardInterrupt: it has, and is not deferred.
    """
    if _state.is_noted and not _state.is_deferred:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Let a block that should not be cut in two run to its end: there the first SIGINT is only noted.

    It is raised by the next :func:`check` after the block. A second one is raised at once.

    Raises:
        KeyboardInterrupt: a SIGINT arrived before the block.
    """
    check()
    with _deferring():
        yield


@contextmanager
def finishing() -> Iterator[None]:
    """Defer a SIGINT in a block that handles another one, which counts as dealt with."""
    with _deferring():
        _state.is_noted = False
        yield


@contextmanager
def _deferring() -> Iterator[None]:
    outer, _state.is_deferred = _state.is_deferred, True
    try:
        yield
    finally:
        _state.is_deferred = outer


def _note(_number: int, _frame: FrameType | None) -> None:
    is_first, _state.is_noted = not _state.is_noted, True
    if not (is_first and _state.is_deferred):
        raise KeyboardInterrupt

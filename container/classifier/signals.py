"""The signals that stop a program, which runs as process 1 of its container.

The kernel drops a signal to process 1 that has no handler, and SIG_DFL is none. So the programs in ``docker/bin`` start
with these signals blocked, which keeps one that arrives early, and unblock them once there is a handler.
"""

import ctypes
import os
import signal
from collections.abc import Mapping
from typing import NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SUPERVISOR = "CLASSIFIER_SUPERVISOR"  # variable of a rank: the process ID of its host's program
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def end_process(number: int, _frame: object = None) -> NoReturn:
    """End this process at once, as a signal handler or instead of one, with the exit code that a shell gives it."""
    os._exit(128 + number)


def end_process_on_stop() -> None:
    """Let the stop signals end this process until the program installs its own handlers, and unblock them."""
    for number in STOP_SIGNALS:
        signal.signal(number, end_process)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def end_with_supervisor(environment: Mapping[str, str] = os.environ) -> None:
    """Have the kernel kill this process when the one that started and watches it ends, if there is one."""
    supervisor = environment.get(SUPERVISOR)
    if supervisor is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before.
    if os.getppid() != int(supervisor):
        end_process(signal.SIGKILL)

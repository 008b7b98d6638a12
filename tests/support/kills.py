"""A training that is killed again and again: each attempt is a process of its own, ended by a real SIGKILL.

  python -m support.kills BASE --kills 20 --seed 0

BASE is laid out like /opt/ml. Every attempt dies at a random moment: at a random step; before or after a random call
of what writes a checkpoint; or at a random time. Then all but the input and the checkpoints is deleted, as on Spot
capacity. The last attempt is left to finish. Prints a line of JSON for each attempt: how it ended, and its log. Torch
is imported once, and each attempt is forked from there.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from classifier import train
from classifier.contract.paths import Paths
from classifier.reporting import recording
from classifier.training import checkpoints, fit, loop

_MAX_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["SAGEMAKER_BASE_DIR"] = str(options.base)
    rng = random.Random(options.seed)
    for number in range(options.kills + 1):
        is_last = number == options.kills
        name, prepare = ("finish", _nothing) if is_last else _moment(rng)
        status, log = attempt(options.base, prepare)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"moment": name, "killed": killed, "status": status, "log": log}), flush=True)
        if not is_last:
            paths = Paths(options.base)
            for folder in (paths.model, paths.output_data.parent):
                shutil.rmtree(folder, ignore_errors=True)


def attempt(base: Path, prepare: Callable[[], None]) -> tuple[int, str]:
    """Run the training in a process of its own, and return its wait status and its log."""
    log = base / "attempt.log"
    pid = os.fork()
    if pid == 0:
        _run(log, prepare)
    deadline = time.monotonic() + _MAX_S
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status, log.read_text(encoding="utf-8")
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _run(log: Path, prepare: Callable[[], None]) -> NoReturn:
    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        recording.Recorder._plot = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]
        prepare()
        code = train.main([])
        sys.stdout.flush()
    finally:
        os._exit(code)


def _moment(rng: random.Random) -> tuple[str, Callable[[], None]]:
    """Choose when the next attempt is killed: its name, and what prepares it."""
    kind = rng.choice(("step", "time", "save_file", "fsync", "replace", "unlink", "best"))
    number, before = rng.randint(1, 4), rng.random() < 0.5
    if kind == "time":
        seconds = rng.uniform(0.1, 4)
        return f"after {seconds:.2f} s", lambda: _kill_after(seconds)
    owner, function = {
        "step": (loop.Trainer, "_train_step"),
        "save_file": (checkpoints, "save_file"),
        "best": (fit.Training, "_save"),
    }.get(kind, (os, kind))
    when = "before" if before else "after"
    return f"{when} call {number} of {function}", lambda: _kill_at_call(owner, function, number, before=before)


def _nothing() -> None:
    pass


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_after(seconds: float) -> None:
    timer = threading.Timer(seconds, _die)
    timer.daemon = True
    timer.start()


def _kill_at_call(owner: Any, name: str, number: int, *, before: bool) -> None:
    original, calls = getattr(owner, name), 0

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and before:
            if name == "save_file":
                # As far as the write got.
                original(*arguments, **options)
                os.truncate(arguments[1], Path(arguments[1]).stat().st_size // 2)
            _die()
        result = original(*arguments, **options)
        if calls == number:
            _die()
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    main()

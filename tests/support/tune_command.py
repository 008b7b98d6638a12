"""Runs ``scripts/tune.py`` as a user does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.commands import run_script

ROOT = Path(__file__).resolve().parents[2]


def start_tune(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command; the caller ends it with :func:`close`."""
    command = [sys.executable, str(ROOT / "scripts" / "tune.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )


def tune(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run_script("tune", list(map(str, arguments)), environment={**os.environ, **(environment or {})})


def read_until(process: subprocess.Popen[str], words: str, times: int) -> list[str]:
    """Read standard output up to the line that contains ``words`` for the ``times``-th time; fail if it ends before."""
    assert process.stdout
    lines: list[str] = []
    while sum(words in line for line in lines) < times:
        line = process.stdout.readline()
        assert line, f"the process has ended: {''.join(lines)}"
        lines.append(line)
    return lines


def close(process: subprocess.Popen[str]) -> None:
    """Wait for a process and close its pipes."""
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()

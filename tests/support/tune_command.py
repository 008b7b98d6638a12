"""Runs ``scripts/tune.py`` as a user does."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.commands import Command, run_script, start_script

ROOT = Path(__file__).resolve().parents[2]


def start_tune(*arguments: object, environment: Mapping[str, str] | None = None) -> Command:
    """Start the command; the caller closes it."""
    return start_script("tune", list(map(str, arguments)), environment={**os.environ, **(environment or {})})


def tune(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run_script("tune", list(map(str, arguments)), environment={**os.environ, **(environment or {})})


def read_until(command: Command, words: str, times: int) -> list[str]:
    """Read standard output up to the line that contains ``words`` for the ``times``-th time; fail if it ends before."""
    lines: list[str] = []
    while sum(words in line for line in lines) < times:
        line = command.stdout.readline()
        assert line, f"the program has ended: {''.join(lines)}"
        lines.append(line)
    return lines

"""Fenced blocks and shell commands of README.md, and a clone of the project to run them in."""

import filecmp
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@dataclass(frozen=True)
class Command:
    """One command of a ```sh block, its continuation lines joined, and the section that it is in."""

    section: str
    text: str


def clone_project(project: Path) -> None:
    """Clone the last commit, with this checkout's environment.

    Raises:
        AssertionError: the environment is not up to date; the clone's commands would bring it up to date, and
            install the clone into it instead of this checkout.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    installed = ROOT / ".venv" / "requirements.txt"
    is_current = installed.exists() and filecmp.cmp(project / "tests" / "requirements.txt", installed, shallow=False)
    assert is_current, "the environment is not that of the last commit: run scripts/setup.sh"
    (project / ".venv").symlink_to(ROOT / ".venv")


def commands(text: str) -> Iterator[Command]:
    """Yield every command of every ```sh block, in order; comment lines are left out."""
    for section, block in blocks(text, "sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield Command(section, line.strip())


def blocks(text: str, language: str) -> Iterator[tuple[str, str]]:
    """Yield the fenced blocks of a language, each with the second-level heading above it."""
    section, lines, inside = "", [], None
    for line in text.splitlines():
        if inside is None and line.startswith("## "):
            section = line.removeprefix("## ").strip()
        elif line.startswith("```"):
            if inside is None:
                inside, lines = line.removeprefix("```").strip(), []
            else:
                if inside == language:
                    yield section, "\n".join(lines)
                inside = None
        elif inside is not None:
            lines.append(line)

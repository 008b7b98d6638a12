"""Fenced blocks and shell commands of README.md."""

import re
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

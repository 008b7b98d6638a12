"""README.md as a program: its shell commands, section by section, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@dataclass(frozen=True)
class Command:
    """One command, with its continuation lines, as it stands in a ```sh block."""

    section: str
    text: str


def commands(text: str) -> Iterator[Command]:
    """Every command of every ```sh block; a line that ends in a backslash goes on."""
    for section, block in blocks(text, "sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield Command(section, line.strip())


def blocks(text: str, language: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a language, each with the heading that it stands under."""
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

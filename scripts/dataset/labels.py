"""A file that says what labels are called → names by label, and a class folder that holds both."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from classifier.errors import DataError


def read_names(path: Path) -> dict[str, str]:
    """``{"0": "dress"}``, ``{"dress": 0}``, ``["dress", …]``, or lines such as ``3 Dresses``, as Polyvore has.

    Raises:
        DataError: neither of these.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--labels {path}: {getattr(error, 'strerror', None) or error}") from None
    return _from_json(path, text) if text.lstrip().startswith(("{", "[")) else _from_lines(path, text)


def _from_json(path: Path, text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"--labels {path} is not JSON: {error}") from None
    pairs = list(enumerate(content) if isinstance(content, list) else content.items())
    if pairs and all(isinstance(value, int) for _, value in pairs):
        pairs = [(value, name) for name, value in pairs]
    if not all(isinstance(name, str) for _, name in pairs):
        raise DataError(f"--labels {path} should map each label to its name")
    return {str(label): str(name) for label, name in pairs}


def _from_lines(path: Path, text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            match = re.match(r"\s*(\S+?)[\s,:=]+(.+)", line)
            if match is None:
                raise DataError(f"--labels {path}, line {number}: should be a label and its name")
            names[match[1]] = match[2].strip()
    return names


def label_folder(label: str, names: Mapping[str, str]) -> str:
    """``3`` named ``Dresses`` → ``3.Dresses``, which the training reads back as label and class name."""
    name = names.get(label, "")
    return f"{label}.{name}" if name and label.isdecimal() else name or label

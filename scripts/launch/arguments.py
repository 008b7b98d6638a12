"""``KEY=VALUE`` words and files of hyperparameters, as every command that trains takes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError


def pairs(texts: Sequence[str], form: str = "KEY=VALUE") -> dict[str, str]:
    """
    Raises:
        ConfigError: a text has no ``=``, or nothing before it.
    """
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise ConfigError(f"{text!r} is not of the form {form}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def read_hyperparameters(file: Path | None, texts: Sequence[str]) -> dict[str, str]:
    """A file's, then those on the command line; all strings, as on the platform.

    Raises:
        ConfigError: the file can't be read, or holds no JSON object.
    """
    values = {} if file is None else read_object(file, "hyperparameters")
    values.update(pairs(texts))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ConfigError: the file can't be read, or holds something else than ``what``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold a JSON object of {what}, not {type(content).__name__}")
    return content

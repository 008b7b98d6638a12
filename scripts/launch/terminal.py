"""Terminal input and output of the commands: KEY=VALUE arguments, JSON files, status lines."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError

_MASK = "***"


def parse_pairs(texts: Sequence[str], form: str = "KEY=VALUE") -> dict[str, str]:
    """Parse ``KEY=VALUE`` arguments; the last value of a repeated key wins.

    Args:
        texts: the arguments.
        form: their form, for the error message.

    Raises:
        ConfigError: an argument has no ``=``, or no key before it.
    """
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise ConfigError(f"{text!r} is not of the form {form}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def read_hyperparameters(file: Path | None, texts: Sequence[str]) -> dict[str, str]:
    """Read hyperparameters from a JSON file, overridden by ``KEY=VALUE`` arguments.

    Returns:
        The values as strings, as the platform passes them.

    Raises:
        ConfigError: the file can't be read or is no JSON object, or an argument is not ``KEY=VALUE``.
    """
    values = {} if file is None else read_object(file, "hyperparameters")
    values.update(parse_pairs(texts))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        what: what the object should contain, for the error message.

    Raises:
        ConfigError: the file can't be read, or does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should contain a JSON object of {what}, not {type(content).__name__}")
    return content


def unique_name(base: str) -> str:
    """Generate a resource name from ``base``, the current time and a random suffix."""
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def as_json(request: object) -> str:
    """Format a request for ``--dry-run``; the values of environment variables, which may be secret, are masked."""
    return json.dumps(_mask(request), indent=2, default=str)


def _mask(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            key: dict.fromkeys(one, _MASK) if key == "Environment" and isinstance(one, Mapping) else _mask(one)
            for key, one in value.items()
        }
    return [_mask(one) for one in value] if isinstance(value, (list, tuple)) else value


def print_status(line: str) -> None:
    """Print a line for the user to standard error, which leaves standard output to results."""
    print(line, file=sys.stderr, flush=True)


def command(script: str, *arguments: str) -> str:
    """Format the command line of one of these scripts, for the user to copy."""
    return " ".join([".venv/bin/python", f"scripts/{script}.py", *arguments])


def is_terminal() -> bool:
    """Whether standard output is a terminal rather than a file or a pipe."""
    return sys.stdout.isatty()

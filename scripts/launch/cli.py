"""``KEY=VALUE`` words and files of hyperparameters, as every command that trains takes them."""

import argparse
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aws.errors import explained
from classifier.errors import ConfigError, UserError
from launch.local.client import DEFAULT_FOLDER


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


def add_common(parser: argparse.ArgumentParser) -> None:
    """``--local``, ``--dry-run``, ``--region`` and where the local client keeps its things."""
    parser.add_argument("--local", action="store_true", help="on this machine, without an account")
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="with --local, where jobs and endpoints are kept (default: local_test/sagemaker)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the exact request, and send nothing")
    parser.add_argument("--region", metavar="NAME", help="default: as the AWS CLI's")


def add_resource(parser: argparse.ArgumentParser) -> None:
    """What every resource that runs an image can have."""
    parser.add_argument("--image", metavar="URI", help="the image; build_and_push.sh prints it (or set IMAGE_URI)")
    parser.add_argument("--role", metavar="NAME", help="name or ARN of the execution role (or set SAGEMAKER_ROLE)")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="a tag; may be given often")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="an environment variable")
    parser.add_argument("--kms-key", metavar="ID", help="the key that encrypts volumes and outputs")
    parser.add_argument("--vpc-subnets", nargs="+", default=[], metavar="ID", help="with --security-groups")
    parser.add_argument("--security-groups", nargs="+", default=[], metavar="ID")
    parser.add_argument("--network-isolation", action="store_true", help="the container gets no network")


def check_network(options: argparse.Namespace) -> None:
    """
    Raises:
        ConfigError: one of the two is there without the other.
    """
    if bool(options.vpc_subnets) != bool(options.security_groups):
        raise ConfigError("--vpc-subnets and --security-groups go together: give both")


def unique_name(base: str) -> str:
    """A name that no other call gives, with the time in it, for the API's resources."""
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def as_json(request: object) -> str:
    return json.dumps(request, indent=2, default=str)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_command(name: str, command: Callable[[], int]) -> int:
    """A command's exit code; what the user can mend is told in one line, and no traceback reaches the terminal."""
    try:
        with explained(name):
            return command()
    except UserError as error:
        message = str(error).removeprefix(f"{name}: ")
        say(f"{name}: {message}")
        return 1
    except OSError as error:
        say(f"{name}: {error.filename or ''}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        say(f"{name}: stopped")
        return 130

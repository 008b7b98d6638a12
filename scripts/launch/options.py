"""What the commands have in common on their command line, and how they end."""

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from classifier.errors import ConfigError, UserError
from launch.arguments import pairs, read_hyperparameters
from launch.cloud import explained
from launch.local.client import DEFAULT_FOLDER

__all__ = [
    "add_common",
    "add_resource",
    "as_json",
    "check_network",
    "pairs",
    "read_hyperparameters",
    "run_command",
    "say",
    "unique_name",
]


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

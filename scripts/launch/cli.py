"""Command-line arguments that several commands share, and their conversion into typed options.

The only module of this package that sees ``argparse``; everything below it takes frozen dataclasses.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from aws.errors import translate_errors
from classifier.errors import ConfigError
from commands import running
from launch.local.client import DEFAULT_FOLDER
from launch.platform.clients import Lookups, PlatformOptions
from launch.platform.resources import ContainerOptions, Security
from launch.terminal import parse_pairs
from launch.training.options import TrainingOptions
from launch.training.request import Resources

DEFAULTS = Resources()


def create_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Create a parser whose help shows the command's docstring, with its examples, as it is written."""
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_common(parser: argparse.ArgumentParser, *, dry_run: str = "print the exact requests and send nothing") -> None:
    """Add ``--local``, ``--folder``, ``--dry-run`` and ``--region``.

    Args:
        dry_run: the help of ``--dry-run``.
    """
    parser.add_argument("--local", action="store_true", help="run on this machine, without an AWS account")
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="with --local: where jobs and endpoints are stored (default: local_test/sagemaker)",
    )
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_argument("--region", metavar="NAME", help="AWS region (default: that of the AWS CLI)")


def add_resource(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every resource that runs an image: image, role, tags, environment and security."""
    parser.add_argument("--image", metavar="URI", help="image, as printed by build_and_push.sh (default: $IMAGE_URI)")
    parser.add_argument("--role", metavar="NAME", help="execution role, name or ARN (default: $SAGEMAKER_ROLE)")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="KEY=VALUE", help="resource tag; repeatable (default: owner=YOU)"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="environment variable; repeatable"
    )
    parser.add_argument("--kms-key", metavar="ID", help="KMS key that encrypts volumes and outputs")
    parser.add_argument("--vpc-subnets", nargs="+", default=[], metavar="ID", help="subnets; need --security-groups")
    parser.add_argument("--security-groups", nargs="+", default=[], metavar="ID", help="needs --vpc-subnets")
    parser.add_argument("--network-isolation", action="store_true", help="no network access from the container")


def add_training_resources(group: argparse._ArgumentGroup) -> None:
    """Add instances, disk, time limits and spot capacity of training jobs."""
    group.add_argument(
        "--instance", default=DEFAULTS.instance_type, metavar="TYPE", help="instance type (default: %(default)s)"
    )
    group.add_argument(
        "--instances",
        type=int,
        default=DEFAULTS.num_instances,
        metavar="N",
        help="number of hosts (default: %(default)s)",
    )
    group.add_argument(
        "--volume", type=int, default=DEFAULTS.volume_gb, metavar="GB", help="disk of each host (default: %(default)s)"
    )
    group.add_argument(
        "--max-run",
        type=int,
        default=DEFAULTS.max_run_s,
        metavar="SECONDS",
        help="time limit of a job (default: %(default)s)",
    )
    group.add_argument(
        "--retry", type=int, metavar="N", help="start a job again up to N times after an internal error of SageMaker"
    )
    group.add_argument(
        "--encrypt-between-hosts", action="store_true", help="encrypt the traffic between hosts, which slows it down"
    )
    group.add_argument("--fast-file", action="store_true", help="stream photos from S3 instead of copying them first")
    group.add_argument("--spot", action="store_true", help="use spot capacity: cheaper, may be interrupted")
    group.add_argument(
        "--max-wait",
        type=int,
        metavar="SECONDS",
        help="with --spot: time limit that includes the wait for capacity (default: --max-run and an hour)",
    )


def platform_options(options: argparse.Namespace) -> PlatformOptions:
    """Convert the arguments of :func:`add_common`; a dry run does without what AWS can't be asked."""
    lookups = Lookups.OPTIONAL if options.dry_run else Lookups.REQUIRED
    return PlatformOptions(local=options.local, folder=options.folder, region=options.region, lookups=lookups)


def container_options(options: argparse.Namespace) -> ContainerOptions:
    """Convert the arguments of :func:`add_resource`.

    Raises:
        ConfigError: only one of ``--vpc-subnets`` and ``--security-groups`` is given, or a tag or variable is not
            ``KEY=VALUE``.
    """
    if bool(options.vpc_subnets) != bool(options.security_groups):
        raise ConfigError("--vpc-subnets and --security-groups go together: give both")
    return ContainerOptions(
        image=options.image,
        role=options.role,
        security=Security(
            kms_key=options.kms_key,
            subnets=tuple(options.vpc_subnets),
            security_groups=tuple(options.security_groups),
            network_isolation=options.network_isolation,
        ),
        environment=parse_pairs(options.env, "--env KEY=VALUE"),
        tags=parse_pairs(options.tag, "--tag KEY=VALUE"),
    )


def training_options(options: argparse.Namespace) -> TrainingOptions:
    """Convert the training arguments that ``train.py`` and ``tune.py`` share.

    Raises:
        ConfigError: as :func:`container_options`, or a channel is not ``NAME=PLACE``.
    """
    return TrainingOptions(
        platform=platform_options(options),
        container=container_options(options),
        data=options.data,
        channels=parse_pairs(options.channel, "--channel NAME=PLACE"),
        output=options.output,
        fast_file=options.fast_file,
        resources=Resources(
            instance_type=options.instance,
            num_instances=options.instances,
            volume_gb=options.volume,
            max_run_s=options.max_run,
            spot=options.spot,
            max_wait_s=options.max_wait,
            retries=options.retry,
            encrypt_between_hosts=options.encrypt_between_hosts,
        ),
    )


def check_needs(options: argparse.Namespace, **needs: str) -> None:
    """Check that no option is given that another one, which is missing, makes effective.

    Args:
        needs: maps the names of options, whose defaults are None or False, to the options that they need.

    Raises:
        ConfigError: one is given without the one that it needs.
    """
    for name, needed in needs.items():
        value = getattr(options, name)
        if value is not None and value is not False and not getattr(options, needed):
            raise ConfigError(f"{_flag(name)} needs {_flag(needed)}: give both, or neither")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run_command(name: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit code; an error that the user can fix is printed in one line, no traceback."""

    def run_translated() -> int:
        with translate_errors(name):
            return run()

    return running.run_command(name, run_translated)

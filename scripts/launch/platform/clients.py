"""Clients of AWS and of the local platform, chosen by the command line."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from aws.clients import client
from aws.errors import UnreachableError
from launch.local.client import DEFAULT_FOLDER, LocalClient, LocalLogs
from launch.local.processes import LOOPBACK
from launch.terminal import print_status

T = TypeVar("T")


@dataclass(frozen=True)
class Platform:
    """The clients of a platform.

    Attributes:
        sagemaker: boto3's ``sagemaker`` client, or the local one with the same methods.
        runtime: boto3's ``sagemaker-runtime`` client, or the local one.
        logs: boto3's ``logs`` client, or the local one.
        interval_s: seconds between two polls.
        flags: the options that select this platform, with a leading space, for commands printed to the user.
        region: AWS's region; None on this machine.
    """

    sagemaker: Any
    runtime: Any
    logs: Any
    interval_s: float
    flags: str
    region: str | None = None


class Lookups(Enum):
    """What to do where a request depends on something that only AWS knows, such as a role's ARN.

    Attributes:
        REQUIRED: ask AWS.
        OPTIONAL: ask, and go on with an assumption where AWS can't be asked; the user is told so.
        ASSUMED: ask nothing, to check a request before anything is sent.
    """

    REQUIRED = "required"
    OPTIONAL = "optional"
    ASSUMED = "assumed"


@dataclass(frozen=True, kw_only=True)
class PlatformOptions:
    """Which platform to use: AWS in a region, or this machine with its jobs and endpoints in a folder.

    Attributes:
        bind: the address on which local endpoints listen.
        interrupt_after_s: seconds after which a new local training is interrupted as on Spot capacity; 0 means never.
    """

    local: bool = False
    folder: Path = DEFAULT_FOLDER
    bind: str = LOOPBACK
    interrupt_after_s: float = 0
    region: str | None = None
    lookups: Lookups = Lookups.REQUIRED

    def assuming(self) -> "PlatformOptions":
        """Return the same platform, of which nothing is asked."""
        return replace(self, lookups=Lookups.ASSUMED)

    def look_up(self, call: Callable[[], T], assumed: T, consequence: str) -> T:
        """Return AWS's answer, or what is assumed where it is not asked.

        Args:
            call: asks AWS.
            assumed: a value of the same form.
            consequence: what a dry run without the answer tells the user, as the end of a sentence.

        Raises:
            CloudError: AWS said no, or can't be asked although the answer is required.
        """
        if self.lookups is Lookups.ASSUMED:
            return assumed
        try:
            return call()
        except UnreachableError as error:
            if self.lookups is Lookups.REQUIRED:
                raise
            print_status(f"not checked: {error}; {consequence}")
            return assumed

    def connect(self) -> Platform:
        """Create the clients; no request is sent.

        Raises:
            CloudError: no region is set, or the profile does not exist.
        """
        return _local_platform(self) if self.local else _aws_platform(self.region)


def _local_platform(options: PlatformOptions) -> Platform:
    local = LocalClient(options.folder, bind=options.bind, interrupt_after_s=options.interrupt_after_s)
    flags = " --local" if options.folder == DEFAULT_FOLDER else f" --local --folder {options.folder}"
    return Platform(sagemaker=local, runtime=local, logs=LocalLogs(local.folder), interval_s=0.2, flags=flags)


def _aws_platform(region: str | None) -> Platform:
    sagemaker = client("sagemaker", region=region)
    return Platform(
        sagemaker=sagemaker,
        runtime=client("sagemaker-runtime", region=region),
        logs=client("logs", region=region),
        interval_s=float(os.environ.get("LAUNCH_POLL_S", "10")),
        flags=f" --region {region}" if region else "",
        region=sagemaker.meta.region_name,
    )

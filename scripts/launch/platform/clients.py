"""Where a command's requests go: to AWS, or to this machine."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws.clients import client
from launch.local.client import DEFAULT_FOLDER, LocalClient, LocalLogs


@dataclass(frozen=True)
class Platform:
    """The clients, how often to ask them, and how a command line says which platform is meant."""

    sagemaker: Any
    runtime: Any
    logs: Any
    interval_s: float
    flags: str


def local_platform(folder: Path) -> Platform:
    one = LocalClient(folder)
    flags = " --local" if folder == DEFAULT_FOLDER else f" --local --folder {folder}"
    return Platform(sagemaker=one, runtime=one, logs=LocalLogs(one.folder), interval_s=0.2, flags=flags)


def aws_platform(region: str | None) -> Platform:
    """
    Raises:
        CloudError: there is no region, or no such profile.
    """
    return Platform(
        sagemaker=client("sagemaker", region=region),
        runtime=client("sagemaker-runtime", region=region),
        logs=client("logs", region=region),
        interval_s=float(os.environ.get("LAUNCH_POLL_S", "10")),
        flags=f" --region {region}" if region else "",
    )


def command(script: str, *arguments: str) -> str:
    """A command of these as one types it."""
    return " ".join([".venv/bin/python", f"scripts/{script}.py", *arguments])


def is_finished(record: Mapping[str, Any], key: str) -> bool:
    return record[key] in ("Completed", "Failed", "Stopped")


def is_terminal() -> bool:
    return sys.stdout.isatty()

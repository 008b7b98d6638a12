"""Polling of jobs and endpoints until they reach a final state."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.errors import CloudError, is_passing, translate_errors
from launch.platform.logs import JobMonitor

Record = Mapping[str, Any]
_MAX_FAILURES = 10
_MAX_BACKOFF = 8  # times the interval


def is_finished(record: Record, status_key: str) -> bool:
    """Whether a job's description shows a final status."""
    return record[status_key] in ("Completed", "Failed", "Stopped")


def wait(
    describe: Callable[[], Record],
    *,
    what: str,
    done: Callable[[Record], bool],
    each: Callable[[Record], object] = lambda _: None,
    interval_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Record:
    """Poll a description until it satisfies ``done``.

    Throttling and lost connections are retried with exponential backoff.

    Args:
        describe: fetches the description.
        what: the resource, for error messages.
        each: called with every description, the final one included.
        interval_s: seconds between two polls.

    Returns:
        The final description.

    Raises:
        CloudError: AWS refused the request, or ten requests in a row failed.
    """
    failures = 0
    while True:
        with translate_errors(what):
            try:
                record = describe()
                failures = 0
            except (ClientError, BotoCoreError) as error:
                failures += 1
                if failures == _MAX_FAILURES or not is_passing(error):
                    raise
                record = None
        if record is not None:
            each(record)
            if done(record):
                return record
        sleep(interval_s * min(2**failures, _MAX_BACKOFF))


def follow_job(
    describe: Callable[[], Record],
    monitor: JobMonitor,
    *,
    name: str,
    kind: str,
    interval_s: float,
    on_detach: Callable[[Record], object],
) -> Record | None:
    """Print a job's progress until it ends.

    Args:
        describe: fetches the job's description.
        kind: ``training`` or ``transform``.
        on_detach: called with the latest description when following stops before the job has ended.

    Returns:
        The final description, or None after Ctrl-C, which leaves the job running.

    Raises:
        CloudError: AWS refused a request or can't be reached; the job keeps running.
    """
    latest: Record = {}

    def show(record: Record) -> None:
        nonlocal latest
        latest = record
        monitor.update(record)

    try:
        # Printed inside the try: a user may press Ctrl-C as soon as this line appears.
        print(f"job         {name}", flush=True)
        return wait(
            describe,
            what=f"{kind} job {name}",
            done=lambda record: is_finished(record, f"{kind.title()}JobStatus"),
            each=show,
            interval_s=interval_s,
        )
    except (KeyboardInterrupt, CloudError) as error:
        monitor.close()
        on_detach(latest)
        if isinstance(error, KeyboardInterrupt):
            return None
        raise
    finally:
        monitor.close()

"""Waiting for the platform: asking again and again until a job or an endpoint is what it should become."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.errors import explained, is_passing

Record = Mapping[str, Any]
_MAX_FAILURES = 10


def wait(
    describe: Callable[[], Record],
    *,
    what: str,
    done: Callable[[Record], bool],
    each: Callable[[Record], object] = lambda _: None,
    interval_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Record:
    """The first description that is done; ``each`` sees all of them, the last one too.

    Throttling and a network that is away for a while are waited for, ever longer.

    Raises:
        CloudError: AWS refuses, or stayed away ten times.
    """
    failures = 0
    while True:
        with explained(what):
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
        sleep(interval_s * min(2**failures, 8))

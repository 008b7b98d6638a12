"""Jobs of a local client, stopped at the end of the test."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.shell_jobs import Jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(Jobs(tmp_path)) as jobs:
        yield jobs

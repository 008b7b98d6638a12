"""A local client in a folder of the test's own."""

from pathlib import Path

import pytest

from support.shell_jobs import Jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)

"""A running `serve` on a small model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import ServerProcess, export_artifact, running, write_artifact


@pytest.fixture(scope="session")
def opt_ml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as /opt/ml, with the files that `train` writes to ``model/``."""
    base = tmp_path_factory.mktemp("opt_ml")
    export_artifact(write_artifact(base / "model"))
    return base


@pytest.fixture(scope="session")
def server(opt_ml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that do not change its state."""
    with running(opt_ml, tmp_path_factory.mktemp("server") / "log", SERVE_RECEIVE_TIMEOUT_S="3") as server:
        yield server

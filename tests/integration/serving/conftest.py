"""Running servers on a small model: one with the default limits, and one with small ones."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import ServerProcess, export_artifact, free_port, running, write_artifact


@pytest.fixture(scope="session")
def opt_ml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as /opt/ml, with the files that `train` writes to ``model/``."""
    base = tmp_path_factory.mktemp("opt_ml")
    export_artifact(write_artifact(base / "model"))
    return base


@pytest.fixture(scope="session")
def metrics_port() -> int:
    """The port of the metrics of ``server``."""
    return free_port()


@pytest.fixture(scope="session")
def server(opt_ml: Path, metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with the default limits for all tests that do not stop it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running(opt_ml, log, SERVE_METRICS_PORT=str(metrics_port)) as server:
        yield server


@pytest.fixture(scope="session")
def read_only_opt_ml(opt_ml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ``opt_ml`` in which nothing may be written."""
    base = tmp_path_factory.mktemp("read_only") / "opt_ml"
    shutil.copytree(opt_ml, base)
    for path in [*base.rglob("*"), base]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return base


@pytest.fixture(scope="session")
def small_server(read_only_opt_ml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with room for 50 connections and 8 MB of bodies, and short timeouts, on a read-only model."""
    limits = {
        "SERVE_MAX_CONNECTIONS": "50",
        "SERVE_MAX_BODY_MB": "2",
        "SERVE_MAX_BUFFERED_MB": "8",
        "SERVE_HEADER_TIMEOUT_S": "1",
        "SERVE_RECEIVE_TIMEOUT_S": "3",
        "SERVE_MIN_UPLOAD_KB_S": "16",
    }
    log = tmp_path_factory.mktemp("small_server") / "log"
    with running(read_only_opt_ml, log, HOME="/nonexistent", **limits) as server:
        yield server

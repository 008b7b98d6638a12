"""Fixtures of the integration tests: a platform for each test, and one moto server for all of a worker's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.jobs import Platform
from support.moto import free_port, moto_server


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Platform:
    return Platform(tmp_path / "opt_ml", monkeypatch, capfd)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of a server that answers as AWS does. Its state is shared: names have to be a test's own."""
    with moto_server(free_port()) as url:
        yield url

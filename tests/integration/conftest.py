"""Fixtures of the integration tests: a platform for each test."""

from pathlib import Path

import pytest

from support.jobs import Platform


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Platform:
    return Platform(tmp_path / "opt_ml", monkeypatch, capfd)

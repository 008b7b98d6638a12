"""What `serve` says before it starts if there is nothing to serve, or nowhere to listen."""

import json
import math
import re
import socket
import tempfile
from pathlib import Path

import pytest

from classifier import serve
from classifier.serving.server import heartbeat_folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of `serve` without a model."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(free.getsockname()[1]))
    return monkeypatch


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """Run `serve`, which must fail; its message."""
    assert serve.main([]) == 1
    return capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_error_names_the_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys)
    assert message.startswith("serve: ")
    assert "model.json" in message


@pytest.mark.usefixtures("environment")
def test_error_names_the_invalid_field_of_the_manifest(
    tmp_path: Path, artifact_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((artifact_folder / "model.json").read_bytes())
    document["preprocessing"]["std"] = [math.inf] * 3
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(document))
    assert re.fullmatch(r"serve: .*model\.json: preprocessing: std=.* should be .*\n", failure(capsys))


def test_error_names_the_invalid_variable(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("SAGEMAKER_BIND_TO_PORT", "http")
    assert failure(capsys).startswith("serve: SAGEMAKER_BIND_TO_PORT='http'")


def test_error_names_the_port_in_use(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        environment.setenv("SAGEMAKER_BIND_TO_PORT", str(port))
        message = failure(capsys)
    assert message == (
        f"serve: can't listen on port {port}: address already in use. Stop the program that uses it, or choose another "
        "port (SAGEMAKER_BIND_TO_PORT; --port of serve_local.sh)\n"
    )


def test_heartbeat_needs_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert heartbeat_folder(tmp_path) == tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Where there is none, and where nothing can be created in it.
    assert heartbeat_folder(tmp_path / "none") == tmp_path
    assert heartbeat_folder(Path("/proc/self")) == tmp_path

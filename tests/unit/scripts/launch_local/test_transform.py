"""Local transform jobs that are stopped, or whose supervisor is killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launch.local.client import LocalClient
from launch.local.processes import is_alive, running_pid
from launch.platform.clients import PlatformOptions
from launch.platform.models import ModelSpec, model_request
from launch.transform import TransformSpec, transform_request, watch

ROLE = "arn:aws:iam::000000000000:role/local"
PATIENCE_S = 60.0


@pytest.fixture
def client(tmp_path: Path) -> LocalClient:
    """A client with a model ``dogs``, and two photos to classify.

    The model is one of several, whose server runs without any: none of these jobs gets as far as a request.
    """
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    client = LocalClient(tmp_path / "sagemaker")
    spec = ModelSpec(name="dogs", image="local", role=ROLE, data=tmp_path.as_uri(), multi_model=True)
    client.create_model(**model_request(spec))
    return client


def start(client: LocalClient, folder: Path) -> dict[str, Any]:
    photos, output = (folder / "photos").as_uri(), (folder / "answers").as_uri()
    request = transform_request(TransformSpec(job_name="job", model_name="dogs", photos=photos, output=output))
    client.create_transform_job(**request)
    return request


def wait(client: LocalClient) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (record := client.describe_transform_job(TransformJobName="job"))["TransformJobStatus"] in (
        "InProgress",
        "Stopping",
    ):
        assert time.monotonic() < end, record
        time.sleep(0.05)
    return record


def test_job_that_is_stopped_before_any_answer_says_so(
    client: LocalClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = start(client, tmp_path)
    client.stop_transform_job(TransformJobName="job")
    platform = PlatformOptions(local=True, folder=client.folder).connect()
    assert watch(platform, request, local=True) == 0
    assert "stopped     on request after 0 of 2 input objects" in capsys.readouterr().out
    assert wait(client)["TransformJobStatus"] == "Stopped"
    assert not (tmp_path / "answers").exists()
    assert not (client.folder / "transform-jobs" / "job" / "server").exists()


def test_server_of_a_killed_supervisor_is_found_and_ended(client: LocalClient, tmp_path: Path) -> None:
    start(client, tmp_path)
    folder = client.folder / "transform-jobs" / "job"
    lock = folder / "server" / "server.lock"
    end = time.monotonic() + PATIENCE_S
    while not (server := running_pid(lock)):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(running_pid(folder / "supervisor.lock") or 0, signal.SIGKILL)
    # It outlives its supervisor until somebody looks at the job.
    assert is_alive(lock)
    record = wait(client)
    assert (record["TransformJobStatus"], "was killed" in record["FailureReason"]) == ("Failed", True)
    assert not _is_running(server)
    assert not (folder / "server").exists()


def _is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False

"""A full disk, and the disk space of ended local jobs."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import teardown
from launch.local.storage import deliver, pack, write_file
from launch.platform.models import ModelSpec, model_request
from support.shell_jobs import Jobs

TESTS = Path(__file__).resolve().parents[3]
SCRIPTS = TESTS.parent / "scripts"


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let every write beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_archive_that_does_not_fit_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(os.urandom(200_000))
    archive = tmp_path / "model.tar.gz"
    with largest_file(100_000), pytest.raises(OSError, match=r"model\.tar\.gz"):
        pack([tmp_path / "model"], archive)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_answer_that_does_not_fit_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    with largest_file(100), pytest.raises(OSError, match=r"1\.jpg\.out"):
        write_file(tmp_path / "1.jpg.out", bytes(1000))
    assert list(tmp_path.iterdir()) == []


def test_archive_that_does_not_fit_at_its_place_leaves_no_part_there(tmp_path: Path) -> None:
    archive, place = tmp_path / "model.tar.gz", tmp_path / "artifacts" / "job" / "output" / "model.tar.gz"
    archive.write_bytes(b"archive")
    # A folder in its place: the move fails at its end.
    (place / "old").mkdir(parents=True)
    with pytest.raises(OSError, match=r"artifacts/job/output/model\.tar\.gz"):
        deliver(archive, (tmp_path / "artifacts").as_uri(), "job")
    assert [path.name for path in place.parent.iterdir()] == ["model.tar.gz"]


def test_job_that_fills_the_disk_fails_with_the_path_and_can_be_watched_and_removed(tmp_path: Path) -> None:
    """In a file system of its own, of 2 MB, which a user namespace needs no privilege for."""
    script = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -P "$3" "$1"'
    words = [str(tmp_path), sys.executable, str(TESTS / "support" / "full_disk.py")]
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    done = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{SCRIPTS}"},
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    record = json.loads(last)
    assert record["TrainingJobStatus"] == "Failed"
    assert f"{tmp_path}/sagemaker/training-jobs/job/model.tar.gz: No space left on device" in record["FailureReason"]
    assert "train: job failed: ClientError: " in done.stderr
    assert [line for line in printed if line.startswith(("watch", "teardown", "left"))] == [
        "watch 1",
        "teardown 0",
        "left 0",
    ]


@pytest.fixture
def ended(jobs: Jobs) -> Jobs:
    """A client with an ended job that has a model of 100 kB."""
    jobs.run(
        "head -c 100000 /dev/urandom > $base/model/weights",
        output=(jobs.client.folder / "artifacts").as_uri(),
        checkpoints=(jobs.client.folder / "artifacts" / "job" / "checkpoints").as_uri(),
    )
    return jobs


def run_teardown(jobs: Jobs, *more: str) -> int:
    return teardown.main(["--local", "--folder", str(jobs.client.folder), *more])


def test_ended_jobs_are_listed_with_their_sizes_and_deleted_with_their_models(
    ended: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ended.client.folder
    (folder / "reports" / "job").mkdir(parents=True)
    assert run_teardown(ended, "--yes") == 0
    assert "nothing is left" in capsys.readouterr().out
    assert run_teardown(ended, "--jobs", "--dry-run") == 0
    # The model, packed once and once unpacked.
    assert "training  job  Completed  0.2 MB on disk" in capsys.readouterr().out
    assert ended.describe()["TrainingJobStatus"] == "Completed"
    assert run_teardown(ended, "--jobs", "--yes") == 0
    assert "removed   training job" in capsys.readouterr().out
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert not (folder / "artifacts" / "job").exists()


def test_artifacts_at_a_place_of_the_users_are_kept(jobs: Jobs) -> None:
    jobs.run("echo w > $base/model/w")
    assert run_teardown(jobs, "--jobs", "--yes") == 0
    assert (jobs.folder / "artifacts" / "job" / "output" / "model.tar.gz").is_file()
    assert not jobs.base().exists()


def test_artifact_that_a_model_refers_to_is_kept(ended: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = ended.describe()["ModelArtifacts"]["S3ModelArtifacts"]
    request: Any = model_request(ModelSpec(name="dogs", image="local", role=ended.describe()["RoleArn"], data=artifact))
    ended.client.create_model(**request)
    assert run_teardown(ended, "--jobs", "--name", "job", "--yes") == 1
    assert "its artifact is used by model dogs: remove that first" in capsys.readouterr().err
    assert Path(artifact.removeprefix("file://")).is_file()
    # Without a name, both are removed, the model first.
    assert run_teardown(ended, "--jobs", "--yes") == 0
    assert not Path(artifact.removeprefix("file://")).exists()


def test_running_job_is_not_deleted(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.start('trap "exit 0" TERM; touch $base/model/up; while true; do sleep 0.1; done')
    jobs.wait_for(jobs.base() / "model" / "up")
    assert run_teardown(jobs, "--jobs", "--yes") == 0
    assert "stopping  training job" in capsys.readouterr().out
    assert jobs.wait()["TrainingJobStatus"] == "Stopped"

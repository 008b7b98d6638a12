"""Data of local jobs: URIs, archives of several hosts, and logs."""

import tarfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from launch.local.client import LocalLogs
from launch.local.storage import local_path, pack


def test_only_file_uris_have_a_local_path() -> None:
    assert local_path("file:///my%20photos/train", "train") == Path("/my photos/train")
    with pytest.raises(ClientError, match="S3Uri 's3://bucket/x': the local client needs a folder"):
        local_path("s3://bucket/x", "S3Uri")


def test_of_equal_files_the_first_hosts_is_packed(tmp_path: Path) -> None:
    for host in ("algo-1", "algo-2"):
        (tmp_path / host).mkdir()
        (tmp_path / host / "model").write_text(host, encoding="utf-8")
    (tmp_path / "algo-2" / "more").touch()
    assert pack([tmp_path / "algo-1", tmp_path / "algo-2"], tmp_path / "model.tar.gz")
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert sorted(archive.getnames()) == ["model", "more"]
        content = archive.extractfile("model")
        assert content is not None
        assert content.read() == b"algo-1"


def test_empty_folders_make_no_archive(tmp_path: Path) -> None:
    assert not pack([tmp_path, tmp_path / "missing"], tmp_path / "out" / "model.tar.gz")
    assert not (tmp_path / "out").exists()


def test_log_events_are_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "training-jobs" / "job" / "logs" / "algo-1.log"
    log.parent.mkdir(parents=True)
    group, stream = "/aws/sagemaker/TrainingJobs", "job/algo-1"
    log.write_bytes(b"first\nsec")
    logs = LocalLogs(tmp_path)
    assert logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="job/")["logStreams"] == [
        {"logStreamName": stream}
    ]
    first = logs.get_log_events(logGroupName=group, logStreamName=stream)
    assert [event["message"] for event in first["events"]] == ["first"]
    log.write_bytes(b"first\nsecond\n")
    second = logs.get_log_events(logGroupName=group, logStreamName=stream, nextToken=first["nextForwardToken"])
    assert [event["message"] for event in second["events"]] == ["second"]

"""Records of the local client: names that are a part of paths, secrets, and a disk that is full."""

import json
import re
import stat
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from aws.request_check import input_shape
from launch.local.client import LocalClient, LocalLogs
from launch.local.records import Records, check_name, now
from launch.terminal import as_json

ESCAPE = "../../escape"
# Operations that take a name, and nothing else.
BY_NAME = {
    "describe_training_job": "TrainingJobName",
    "stop_training_job": "TrainingJobName",
    "describe_transform_job": "TransformJobName",
    "stop_transform_job": "TransformJobName",
    "describe_hyper_parameter_tuning_job": "HyperParameterTuningJobName",
    "stop_hyper_parameter_tuning_job": "HyperParameterTuningJobName",
    "list_training_jobs_for_hyper_parameter_tuning_job": "HyperParameterTuningJobName",
    "describe_model": "ModelName",
    "delete_model": "ModelName",
    "describe_endpoint_config": "EndpointConfigName",
    "delete_endpoint_config": "EndpointConfigName",
    "describe_endpoint": "EndpointName",
    "delete_endpoint": "EndpointName",
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the client's with all that a record has."""
    folder = tmp_path / "escape"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "algo-1.log").write_text("precious\n", encoding="utf-8")
    status = {"TrainingJobStatus": "InProgress", "TransformJobStatus": "InProgress", "EndpointStatus": "InService"}
    (folder / "record.json").write_text(json.dumps(status), encoding="utf-8")
    return folder


@pytest.mark.parametrize("operation", BY_NAME)
def test_no_operation_follows_a_name_out_of_the_folder(tmp_path: Path, outside: Path, operation: str) -> None:
    client = LocalClient(tmp_path / "sagemaker")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    with pytest.raises(ClientError, match="only letters, digits and hyphens, at most 63"):
        getattr(client, operation)(**{BY_NAME[operation]: ESCAPE})
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_operations_without_a_name_of_their_own_do_not_either(tmp_path: Path, outside: Path) -> None:
    client = LocalClient(tmp_path / "sagemaker")
    logs = LocalLogs(client.folder)
    group = "/aws/sagemaker/TrainingJobs"
    arn = f"arn:aws:sagemaker:local:000000000000:training-job/{ESCAPE}"
    for call in (
        lambda: logs.describe_log_streams(logGroupName=f"{group}/{ESCAPE}"),
        lambda: logs.get_log_events(logGroupName=group, logStreamName=f"{ESCAPE}/algo-1"),
        lambda: logs.get_log_events(logGroupName=group, logStreamName="../../escape/logs/algo-1"),
        lambda: client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}]),
        lambda: client.invoke_endpoint(EndpointName=ESCAPE, Body=b""),
        lambda: client.invoke_endpoint_async(EndpointName=ESCAPE, InputLocation=(outside / "record.json").as_uri()),
    ):
        with pytest.raises(ClientError, match="ValidationException"):
            call()
    assert "Tags" not in json.loads((outside / "record.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        ("CreateTrainingJob", "TrainingJobName"),
        ("CreateTransformJob", "TransformJobName"),
        ("CreateModel", "ModelName"),
        ("CreateEndpointConfig", "EndpointConfigName"),
        ("CreateEndpoint", "EndpointName"),
    ],
)
def test_names_are_those_that_aws_accepts(operation: str, field: str) -> None:
    shape = input_shape(operation).members[field]
    names = ["a", "A9", "a-b", "a--b", "a" * 63, "", "-a", "a-", "a" * 64, "a.b", "a_b", "a/b", "..", "a\n", "ä"]
    for name in names:
        is_valid = bool(re.fullmatch(shape.metadata["pattern"], name)) and len(name) <= shape.metadata["max"]
        assert _is_accepted(name) == is_valid, name


def _is_accepted(name: str) -> bool:
    try:
        check_name(name)
    except ClientError:
        return False
    return True


def test_records_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    records = Records(tmp_path, "model")
    records.create("one", {"Environment": {"TOKEN": "secret"}, "CreationTime": now()})
    records.update("one", Status="x")
    for path in (tmp_path / "models" / "one").iterdir():
        assert b"secret" not in path.read_bytes() or stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_dry_runs_mask_the_values_of_variables() -> None:
    container = {"Image": "local", "Environment": {"TOKEN": "secret", "A": ""}}
    requests = {"CreateModel": {"PrimaryContainer": container}, "CreateTrainingJob": [{"Environment": {"B": "secret"}}]}
    printed = as_json(requests)
    assert "secret" not in printed
    assert json.loads(printed)["CreateModel"]["PrimaryContainer"] == {
        "Image": "local",
        "Environment": {"TOKEN": "***", "A": "***"},
    }
    assert json.loads(printed)["CreateTrainingJob"] == [{"Environment": {"B": "***"}}]


def test_record_that_does_not_change_is_not_written(tmp_path: Path) -> None:
    """A full disk does not keep a command from looking at a resource."""
    records = Records(tmp_path, "endpoint")
    records.create("one", {"Status": "InService", "CreationTime": now()})
    path = tmp_path / "endpoints" / "one" / "record.json"
    before = path.stat().st_ino
    records.update("one", Status="InService")
    assert path.stat().st_ino == before
    records.update("one", Status="Failed")
    assert path.stat().st_ino != before

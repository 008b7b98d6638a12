"""predict.py on endpoints that are missing, not in service, or asynchronous, against moto over HTTP.

Moto stores the answers of asynchronous endpoints in S3, at once, as given to its own API. Its descriptions lack
AsyncInferenceConfig, which is scripted.
"""

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.drawing import write_classes

if TYPE_CHECKING:
    from support.cloud_script import Cloud

OUTPUT = "s3://bucket/answers"
ASYNCHRONOUS = {
    "EndpointName": "dogs",
    "EndpointStatus": "InService",
    "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": OUTPUT}},
}
ERROR = json.dumps({"error": {"type": "ImageError", "message": "the photo is cut off"}})
FAILURE = f'Received client error (422) from model with message "{ERROR}"'


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, one of each class."""
    return write_classes(tmp_path / "photos", photos_per_class=1)


def answer_with(moto_url: str, *results: dict[str, Any]) -> None:
    body = json.dumps({"results": results}).encode()
    url = f"{moto_url}/moto-api/static/sagemaker/async-endpoint-results"
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=30) as done:
        assert done.status == 201


def document(name: str) -> str:
    prediction = {"label": name, "class_name": name, "probability": 0.9}
    names = ["cross", "disc", "square"]
    return json.dumps({"predictions": [prediction], "labels": names, "class_names": names})


def inputs(shell: Any, prefix: str = "answers/inputs/") -> list[str]:
    found = shell.client("s3").list_objects_v2(Bucket="bucket", Prefix=prefix)
    return [one["Key"] for one in found.get("Contents", ())]


@pytest.mark.usefixtures("bucket")
def test_asynchronous_answers_and_failures_are_awaited_and_the_uploads_removed(
    shell: Any, cloud: "Cloud", moto_url: str, photos: Path
) -> None:
    cloud.answer("DescribeEndpoint", ASYNCHRONOUS)
    failure = {"is_failure": True, "data": FAILURE}
    answer_with(moto_url, {"data": document("cross")}, failure, {"data": document("disc")})
    uploaded: list[str] = []
    cloud.when("/endpoints/dogs/async-invocations", lambda: uploaded.extend(inputs(shell)))
    done = shell.run("predict", "dogs", str(photos))
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        "cross/0.jpg   cross 90.0%",
        "square/0.jpg  disc 90.0%",
        "correct     1 of 2, by folder name (50.0%)",
    ]
    assert done.stderr.startswith("disc/0.jpg    failed: the photo is cut off (s3://sagemaker-output-")
    # Each photo was there when the endpoint was asked, and none is left.
    assert len(set(uploaded)) == 3
    assert all(key.endswith(".jpg") for key in uploaded)
    assert inputs(shell) == []


@pytest.mark.usefixtures("bucket")
def test_photo_without_an_answer_in_time_stays_where_the_endpoint_reads_it(
    shell: Any, cloud: "Cloud", photos: Path
) -> None:
    cloud.answer("DescribeEndpoint", ASYNCHRONOUS)
    # Without a place for failures, which an endpoint need not have.
    locations = {"X-Amzn-SageMaker-OutputLocation": f"{OUTPUT}/1.out"}
    cloud.answer("/endpoints/dogs/async-invocations", {"InferenceId": "1"}, headers=locations)
    done = shell.run("predict", "dogs", str(photos / "disc"), "--upload", "s3://bucket/mine", "--wait", "0.2")
    assert done.returncode == 1
    assert "disc/0.jpg  no answer after 0.2 s" in done.stderr
    (left,) = inputs(shell, "mine/")
    assert f"predict: still queued: s3://bucket/{left}; its answer will be {OUTPUT}/1.out" in done.stderr


def test_wrong_endpoint_name_ends_the_command_at_once(shell: Any, cloud: "Cloud", photos: Path) -> None:
    done = shell.run("predict", "cats", str(photos))
    assert done.returncode == 1
    remedy = ".venv/bin/python scripts/teardown.py --dry-run lists yours"
    assert done.stderr == f"predict: there is no endpoint cats; {remedy}\n"
    # Also without the permission to describe it.
    cloud.refuse("DescribeEndpoint", "AccessDeniedException")
    cloud.refuse("/endpoints/cats/invocations", "ValidationError", "Endpoint cats of account 1 not found.")
    denied = shell.run("predict", "cats", str(photos))
    assert (denied.returncode, denied.stderr.count("\n")) == (1, 1)
    assert "endpoint cats: ValidationError: Endpoint cats of account 1 not found." in denied.stderr


def test_endpoint_that_is_not_in_service_is_not_asked(shell: Any, cloud: "Cloud", photos: Path) -> None:
    record = {"EndpointName": "dogs", "EndpointStatus": "Failed", "FailureReason": "no ping"}
    cloud.answer("DescribeEndpoint", record)
    done = shell.run("predict", "dogs", str(photos))
    assert done.stderr == "predict: endpoint dogs is Failed: no ping; it can't be invoked now\n"


def test_options_that_the_kind_of_endpoint_does_not_have_are_errors(shell: Any, cloud: "Cloud", photos: Path) -> None:
    cloud.answer("DescribeEndpoint", ASYNCHRONOUS)
    waiting = shell.run("predict", "dogs", str(photos), "--wait", "nan")
    assert waiting.stderr == "predict: --wait nan: at least 0 seconds\n"
    several = shell.run("predict", "dogs", str(photos), "--target-model", "a.tar.gz")
    assert several.stderr == "predict: --target-model: endpoint dogs is asynchronous and serves one model\n"
    cloud.answer("DescribeEndpoint", {"EndpointName": "dogs", "EndpointStatus": "InService"})
    upload = shell.run("predict", "dogs", str(photos), "--upload", "s3://bucket/x")
    assert upload.stderr == "predict: --upload: endpoint dogs is not asynchronous, and reads no photos from S3\n"


def test_dry_run_of_an_asynchronous_prediction_sends_nothing(shell: Any, cloud: "Cloud", photos: Path) -> None:
    cloud.answer("DescribeEndpoint", ASYNCHRONOUS)
    dry = shell.run("predict", "dogs", str(photos / "disc"), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    (request,) = json.loads(dry.stdout)
    assert request["InputLocation"].startswith(f"{OUTPUT}/inputs/")
    assert "Body" not in request
    assert [name for name, _ in cloud.requests] == ["DescribeEndpoint"]

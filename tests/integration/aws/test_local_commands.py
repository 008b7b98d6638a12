"""The commands with --local: real jobs and servers on this machine, with the platform's descriptions."""

import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from launch.endpoint.request import (
    EndpointSpec,
    Update,
    config_request,
    create_request,
    update_request,
)
from launch.local.client import LocalClient
from launch.local.storage import local_path
from launch.platform.models import ModelSpec, model_request
from support.drawing import write_classes
from support.servers import addresses, drawn_photos, export_artifact, write_artifact

ROLE = "arn:aws:iam::000000000000:role/local"
PATIENCE_S = 240.0


def train(shell: Any, *more: str) -> list[str]:
    photos = shell.folder / "photos"
    if not photos.is_dir():
        write_classes(photos)
    return ["--local", "--data", str(photos), "--name", "job", "model=squeezenet1_1", "pretrained=false", *more]


def test_local_dry_run_prints_the_request(shell: Any) -> None:
    dry = shell.run("train", *train(shell, "--dry-run", "--instances", "2", "--spot"))
    request = json.loads(dry.stdout)
    assert request["AlgorithmSpecification"]["TrainingImage"] == "local"
    assert request["CheckpointConfig"]["S3Uri"].startswith("file:///")
    assert not (shell.folder / "sagemaker").exists()


@pytest.mark.slow
def test_failed_job_is_reported_with_its_reason(shell: Any) -> None:
    arguments = train(shell)
    for photo in (shell.folder / "photos").rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    done = shell.run("train", *arguments)
    assert done.returncode == 1
    assert "train: job failed: DataError: " in done.stderr
    assert "last lines of its log:" in done.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_prints_how_to_stop_it(shell: Any) -> None:
    code, errors = shell.interrupt("train", "epoch", *train(shell, "image_size=32", "epochs=1000"))
    assert code == 130
    assert "the job keeps running: this machine" in errors
    assert f"train.py --stop job --local --folder {shell.folder}/sagemaker" in errors
    assert shell.run("train", "--stop", "job", "--local").returncode == 0
    watched = shell.run("train", "--watch", "job", "--local")
    assert watched.returncode == 0, watched.stderr
    assert "stopped     on request" in watched.stdout
    assert "artifact    file://" in watched.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two artifacts, ``a.tar.gz`` and ``b.tar.gz``."""
    folder = tmp_path_factory.mktemp("archives")
    model = export_artifact(write_artifact(tmp_path_factory.mktemp("model") / "model"))
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        archive.add(model, ".")
    shutil.copy(folder / "a.tar.gz", folder / "b.tar.gz")
    return folder


class Endpoints:
    """Creates models and endpoints of a local client."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.client = LocalClient(folder, **options)

    def config(self, name: str, data: str, *, multi_model: bool = False, environment: Any = None, **more: Any) -> None:
        spec = ModelSpec(
            name=name, image="local", role=ROLE, data=data, multi_model=multi_model, environment=environment or {}
        )
        self.client.create_model(**model_request(spec))
        self.client.create_endpoint_config(**config_request(EndpointSpec(config_name=name, model_name=name, **more)))

    def create(self, config: str) -> dict[str, Any]:
        self.client.create_endpoint(**create_request("endpoint", config, {}))
        return self.wait()

    def update(self, config: str) -> dict[str, Any]:
        self.client.update_endpoint(**update_request("endpoint", config, Update()))
        return self.wait()

    def wait(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while (record := self.client.describe_endpoint(EndpointName="endpoint"))["EndpointStatus"] in (
            "Creating",
            "Updating",
        ):
            assert time.monotonic() < end, record
            time.sleep(0.1)
        return record

    def invoke(self, body: bytes, **more: str) -> dict[str, Any]:
        answer = self.client.invoke_endpoint(
            EndpointName="endpoint", Body=body, ContentType="application/x-image", **more
        )
        return json.loads(answer["Body"].read())


@pytest.fixture
def endpoints(tmp_path: Path) -> Any:
    endpoints = Endpoints(tmp_path / "sagemaker")
    yield endpoints
    for one in endpoints.client.list_endpoints()["Endpoints"]:
        endpoints.client.delete_endpoint(EndpointName=one["EndpointName"])


@pytest.mark.slow
def test_endpoint_serves_until_it_is_deleted_and_through_a_failed_update(endpoints: Endpoints, archives: Path) -> None:
    endpoints.config("first", (archives / "a.tar.gz").as_uri())
    endpoints.config("wrong", (archives / "a.tar.gz").as_uri(), environment={"SERVE_MAX_INSTANCES": "many"})
    endpoints.config("second", (archives / "b.tar.gz").as_uri())
    record = endpoints.create("first")
    assert record["EndpointStatus"] == "InService"
    assert addresses(record["Server"]["port"]) == {"127.0.0.1"}
    # Another client sees the same endpoint, and a client error has the platform's form.
    other = Endpoints(endpoints.client.folder)
    before = other.invoke(drawn_photos(1)[0])
    with pytest.raises(ClientError) as refused:
        other.invoke(b"no photo")
    assert refused.value.response["Error"].get("Code") == "ModelError"
    assert refused.value.response.get("OriginalStatusCode") in (400, 422)
    failed = endpoints.update("wrong")
    assert (failed["EndpointStatus"], failed["EndpointConfigName"]) == ("InService", "first")
    assert "SERVE_MAX_INSTANCES='many'" in failed["FailureReason"]
    assert endpoints.invoke(drawn_photos(1)[0]) == before
    updated = endpoints.update("second")
    assert (updated["EndpointStatus"], updated["EndpointConfigName"]) == ("InService", "second")
    assert endpoints.invoke(drawn_photos(1)[0]) == before
    endpoints.client.delete_endpoint(EndpointName="endpoint")
    with pytest.raises(ClientError, match="could not find endpoint"):
        endpoints.invoke(drawn_photos(1)[0])


@pytest.mark.slow
def test_multi_model_endpoint_loads_the_requested_model(endpoints: Endpoints, archives: Path) -> None:
    endpoints.config("many", archives.as_uri(), multi_model=True)
    assert endpoints.create("many")["EndpointStatus"] == "InService"
    photo = drawn_photos(1)[0]
    assert endpoints.invoke(photo, TargetModel="a.tar.gz") == endpoints.invoke(photo, TargetModel="b.tar.gz")
    with pytest.raises(ClientError, match=r"there is no model '\.\./a.tar.gz'"):
        endpoints.invoke(photo, TargetModel="../a.tar.gz")


@pytest.mark.slow
def test_asynchronous_endpoint_writes_its_answers_to_files(
    shell: Any, endpoints: Endpoints, archives: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers"
    everywhere = Endpoints(endpoints.client.folder, bind="0.0.0.0")
    everywhere.config("later", (archives / "a.tar.gz").as_uri(), asynchronous=answers.as_uri())
    record = everywhere.create("later")
    assert record["EndpointStatus"] == "InService"
    assert addresses(record["Server"]["port"]) == {"0.0.0.0"}
    assert record["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == answers.as_uri()
    with pytest.raises(ClientError, match="is asynchronous: use InvokeEndpointAsync"):
        endpoints.invoke(drawn_photos(1)[0])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "good.jpg").write_bytes(drawn_photos(1)[0])
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no photo")
    # The folders are those of the platform, and no name in a request leads out of them.
    good, bad, missing = [
        endpoints.client.invoke_endpoint_async(
            EndpointName="endpoint",
            InputLocation=(tmp_path / "photos" / name).as_uri(),
            ContentType="application/x-image",
            InferenceId="../../id",
        )
        for name in ("good.jpg", "bad.jpg", "none.jpg")
    ]
    written = sorted(str(path.relative_to(answers)) for path in answers.rglob("*") if path.is_file())
    places = [good["OutputLocation"], bad["FailureLocation"], missing["FailureLocation"]]
    assert [f"{answers.as_uri()}/{name}" for name in written] == sorted(places)
    assert [place.endswith("-error.out") for place in places] == [False, True, True]
    assert all(place.startswith(f"{answers.as_uri()}/failed/") for place in places[1:])
    assert good["InferenceId"] == "../../id"
    assert b"Received client error (422) from model with message" in local_path(places[1], "").read_bytes()
    assert b"No such file or directory" in local_path(places[2], "").read_bytes()
    done = shell.run("predict", "--local", "endpoint", str(tmp_path / "photos"))
    assert done.returncode == 1
    assert done.stderr.startswith("photos/bad.jpg   failed: not an image: 8 bytes that begin with b'no photo' (file://")
    assert done.stdout.startswith("photos/good.jpg  ")
    # The photos are read where they are, and stay.
    assert len(list((tmp_path / "photos").iterdir())) == 2

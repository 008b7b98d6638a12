"""The SageMaker SDK's local mode, an independent client of the image, which runs it with Docker Compose."""

import gc
import json
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.containers import docker

SHARED = Path(__file__).resolve().parents[3] / "shared"
PHOTOS = SHARED / "data" / "clothing10"
WEIGHTS = SHARED / "weights"
CLASSES = ("dress", "hat", "pants", "shoes")
PARAMETERS = {
    "model": "mobilenet_v2",
    "freeze": "backbone",
    "image_size": "128",
    "augmentation": "none",
    "epochs": "10",
    "lr": "0.01",
}

pytestmark = [
    # raised by the SDK itself
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not PHOTOS.is_dir() or not any(WEIGHTS.glob("*.pth")), reason="no photos in ../shared"),
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="the SDK's local mode needs docker-compose"),
]


@pytest.fixture
def channels(tmp_path: Path) -> dict[str, Path]:
    """Four classes of real photos, few enough to train on in seconds, and ImageNet's weights."""
    for channel, count in (("train", 25), ("validation", 8)):
        for name in CLASSES:
            folder = tmp_path / channel / name
            folder.mkdir(parents=True)
            for photo in sorted((PHOTOS / channel / name).iterdir())[:count]:
                shutil.copy(photo, folder)
    return {"train": tmp_path / "train", "validation": tmp_path / "validation", "pretrained": WEIGHTS}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from sagemaker.core.local import LocalSession  # noqa: PLC0415 (takes seconds to import)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    quiet = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
    session = LocalSession(boto3.Session(region_name="eu-west-1"), sagemaker_config=quiet)
    (tmp_path / "containers").mkdir()
    session.config = {"local": {"container_root": str(tmp_path / "containers"), "serving_port": free_port()}}
    before = all_containers()
    yield session
    for name in all_containers() - before:
        docker("rm", "--force", name)
    # Close what the SDK leaves open here, as a later test would fail with the ResourceWarning.
    gc.collect()


def test_local_mode_trains_deploys_and_predicts(
    image_name: str, session: Any, channels: dict[str, Path], tmp_path: Path
) -> None:
    client = session.sagemaker_client
    client.create_training_job(
        TrainingJobName="clothes",
        AlgorithmSpecification={"TrainingImage": image_name},
        InputDataConfig=[file_channel(name, folder) for name, folder in channels.items()],
        OutputDataConfig={"S3OutputPath": f"file://{tmp_path / 'output'}"},
        ResourceConfig={"InstanceType": "local", "InstanceCount": 1},
        HyperParameters=PARAMETERS,
    )
    model = client.describe_training_job("clothes")["ModelArtifacts"]["S3ModelArtifacts"]
    client.create_model("clothes", {"Image": image_name, "ModelDataUrl": model, "Environment": {}})
    variant = {"VariantName": "all", "ModelName": "clothes", "InstanceType": "local", "InitialInstanceCount": 1}
    client.create_endpoint_config("clothes", [variant])
    client.create_endpoint("clothes", "clothes")
    try:
        assert client.describe_endpoint("clothes")["EndpointStatus"] == "InService"
        right = [name for name in CLASSES if label_of(session, first_photo(name)) == name]
    finally:
        client.delete_endpoint("clothes")
    assert len(right) >= 3, f"of {CLASSES}, only {right} are classified correctly"


def test_local_mode_trains_on_two_hosts(
    image_name: str, session: Any, channels: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = session.sagemaker_client
    client.create_training_job(
        TrainingJobName="two",
        AlgorithmSpecification={"TrainingImage": image_name},
        InputDataConfig=[file_channel(name, folder) for name, folder in channels.items()],
        OutputDataConfig={"S3OutputPath": f"file://{tmp_path / 'output'}"},
        ResourceConfig={"InstanceType": "local", "InstanceCount": 2},
        HyperParameters={**PARAMETERS, "optimize_for_cpu": "false"},
    )
    assert "2 ranks on 2 hosts" in capfd.readouterr().out
    model = client.describe_training_job("two")["ModelArtifacts"]["S3ModelArtifacts"]
    with tarfile.open(model.removeprefix("file://")) as archive:
        manifest = archive.extractfile("model.json")
        assert manifest is not None
        assert json.load(manifest)["metrics"]["validation:accuracy"] > 0.7


def file_channel(name: str, folder: Path) -> dict[str, Any]:
    source = {"FileDataDistributionType": "FullyReplicated", "FileUri": f"file://{folder}"}
    return {"ChannelName": name, "DataSource": {"FileDataSource": source}}


def first_photo(class_name: str) -> bytes:
    return min((PHOTOS / "test" / class_name).iterdir()).read_bytes()


def label_of(session: Any, photo: bytes) -> str:
    answer = session.sagemaker_runtime_client.invoke_endpoint(
        Body=photo, EndpointName="clothes", ContentType="image/jpeg", Accept="application/json"
    )
    return json.loads(answer["Body"].read())["predictions"][0]["label"]


def all_containers() -> set[str]:
    return set(docker("ps", "--all", "--quiet").split())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

"""The local client with the image: a training job and an endpoint in containers."""

import json
import time
from pathlib import Path

from launch.endpoint.request import EndpointSpec, config_request, create_request
from launch.local.client import LocalClient
from launch.platform.models import ModelSpec, model_request
from launch.training.request import Resources, TrainingSpec, training_request
from support.containers import PATIENCE_S, RESNET, TINY, docker
from support.drawing import draw_photo, encode

ROLE = "arn:aws:iam::000000000000:role/local"


def train(client: LocalClient, image: str, channels: dict[str, Path], **more: object) -> dict[str, object]:
    values = {
        "job_name": f"docker-{client.folder.parent.name[-8:].replace('_', '-').strip('-')}",
        "image": image,
        "role": ROLE,
        "channels": {name: folder.as_uri() for name, folder in channels.items()},
        "output": (client.folder / "artifacts").as_uri(),
        "hyperparameters": TINY,
    }
    request = training_request(TrainingSpec(**{**values, **more}))  # pyright: ignore[reportArgumentType]
    client.create_training_job(**request)
    end = time.monotonic() + 4 * PATIENCE_S
    name = request["TrainingJobName"]
    while (record := client.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
        assert time.monotonic() < end, record
        time.sleep(0.2)
    return record


def test_model_trained_in_the_image_is_served_from_it(image_name: str, shapes: dict[str, Path], tmp_path: Path) -> None:
    client = LocalClient(tmp_path / "sagemaker")
    record = train(client, image_name, shapes, hyperparameters={**RESNET, "optimize_for_cpu": "false"})
    assert record["TrainingJobStatus"] == "Completed", record
    data = record["ModelArtifacts"]["S3ModelArtifacts"]  # pyright: ignore[reportIndexIssue]
    client.create_model(**model_request(ModelSpec(name="model", image=image_name, role=ROLE, data=data)))
    client.create_endpoint_config(**config_request(EndpointSpec(config_name="config", model_name="model")))
    client.create_endpoint(**create_request("endpoint", "config", {}))
    end = time.monotonic() + 2 * PATIENCE_S
    try:
        while (found := client.describe_endpoint(EndpointName="endpoint"))["EndpointStatus"] == "Creating":
            assert time.monotonic() < end, found
            time.sleep(0.2)
        assert found["EndpointStatus"] == "InService", found
        photo = encode(draw_photo(shape="disc"))
        answer = client.invoke_endpoint(EndpointName="endpoint", Body=photo, ContentType="application/x-image")
        assert json.loads(answer["Body"].read())["class_name"] in ("cross", "disc", "square")
    finally:
        client.delete_endpoint(EndpointName="endpoint")


def test_two_hosts_in_the_image_train_one_model(image_name: str, shapes: dict[str, Path], tmp_path: Path) -> None:
    client, networks = LocalClient(tmp_path / "sagemaker"), docker("network", "ls", "--quiet")
    hosts = Resources(num_instances=2)
    record = train(client, image_name, shapes, hyperparameters={**RESNET, "optimize_for_cpu": "false"}, resources=hosts)
    assert record["TrainingJobStatus"] == "Completed", record
    metrics = {one["MetricName"]: one["Value"] for one in record["FinalMetricDataList"]}  # pyright: ignore
    assert metrics["validation:accuracy"] > 0.8
    name = record["TrainingJobName"]
    for host in ("algo-1", "algo-2"):
        assert f"{name}-{host}" not in docker("ps", "--all", "--format", "{{.Names}}")
    assert docker("network", "ls", "--quiet") == networks


def test_failed_job_in_the_image_has_the_failure_reason(
    image_name: str, shapes: dict[str, Path], tmp_path: Path
) -> None:
    record = train(LocalClient(tmp_path / "sagemaker"), image_name, shapes, hyperparameters={"epochs": "none"})
    assert record["TrainingJobStatus"] == "Failed"
    assert "hyperparameter epochs='none'" in str(record["FailureReason"])

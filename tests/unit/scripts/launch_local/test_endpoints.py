"""Local endpoints without a running server: rejected requests, and failures before a server starts."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from launch.endpoint.request import EndpointSpec, config_request, create_request
from launch.local.client import LocalClient
from launch.platform.models import ModelSpec, model_request


@pytest.fixture
def client(tmp_path: Path) -> LocalClient:
    return LocalClient(tmp_path / "sagemaker")


def create_endpoint(client: LocalClient, data: str) -> None:
    spec = ModelSpec(name="model", image="local", role="arn:aws:iam::000000000000:role/local", data=data)
    client.create_model(**model_request(spec))
    client.create_endpoint_config(**config_request(EndpointSpec(config_name="config", model_name="model")))
    client.create_endpoint(**create_request("endpoint", "config", {}))


def test_endpoint_without_an_artifact_fails_with_the_reason(client: LocalClient, tmp_path: Path) -> None:
    create_endpoint(client, (tmp_path / "none.tar.gz").as_uri())
    record = client.describe_endpoint(EndpointName="endpoint")
    assert record["EndpointStatus"] == "Failed"
    assert "none.tar.gz: there is no such file" in record["FailureReason"]
    with pytest.raises(ClientError, match="endpoint 'endpoint' is Failed, so it can't be invoked now"):
        client.invoke_endpoint(EndpointName="endpoint", Body=b"x", ContentType="image/png")


def test_archive_with_paths_outside_its_folder_is_not_unpacked(client: LocalClient, tmp_path: Path) -> None:
    import io  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    create_endpoint(client, (tmp_path / "model.tar.gz").as_uri())
    assert "can't be unpacked" in client.describe_endpoint(EndpointName="endpoint")["FailureReason"]
    assert not list(tmp_path.rglob("outside"))


def test_config_in_use_is_kept_until_its_endpoint_is_deleted(client: LocalClient, tmp_path: Path) -> None:
    create_endpoint(client, (tmp_path / "none.tar.gz").as_uri())
    with pytest.raises(ClientError, match="is used by endpoint 'endpoint'"):
        client.delete_endpoint_config(EndpointConfigName="config")
    client.delete_endpoint(EndpointName="endpoint")
    client.delete_endpoint_config(EndpointConfigName="config")
    client.delete_model(ModelName="model")
    assert client.list_endpoints()["Endpoints"] == client.list_models()["Models"] == []
    assert client.list_endpoint_configs()["EndpointConfigs"] == []


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("describe_endpoint", {"EndpointName": "none"}, "could not find endpoint 'none'"),
        ("delete_model", {"ModelName": "none"}, "could not find model 'none'"),
        ("create_endpoint", {"EndpointName": "e", "EndpointConfigName": "none"}, "could not find endpoint-config"),
    ],
)
def test_missing_resources_raise_the_apis_error(
    client: LocalClient, operation: str, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        getattr(client, operation)(**request_)


def test_tags_are_listed_added_and_replaced(client: LocalClient, tmp_path: Path) -> None:
    create_endpoint(client, (tmp_path / "none.tar.gz").as_uri())
    arn = client.describe_endpoint(EndpointName="endpoint")["EndpointArn"]
    project = {"Key": "project", "Value": "image-classifier"}
    assert client.list_tags(ResourceArn=arn)["Tags"] == [project]
    changed = [{"Key": "owner", "Value": "me"}, {"Key": "project", "Value": "other"}]
    client.add_tags(ResourceArn=arn, Tags=changed)
    assert client.list_tags(ResourceArn=arn)["Tags"] == changed[::-1]

"""moto's server, for all tests of tuning on AWS."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from aws import free_port, moto_server


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server(free_port()) as url:
        yield url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, moto_url: str, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment in which every AWS client speaks to moto's server; a bucket ``photos`` is there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    client.close()
    return monkeypatch

"""AWS clients of the tests of tuning."""

from pathlib import Path

import boto3
import pytest

from support.moto import speak_to


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, moto_url: str, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which AWS clients connect to the moto server, which has a bucket ``photos``."""
    speak_to(moto_url, monkeypatch, tmp_path)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    client.put_object(Bucket="photos", Key="dogs/train/a/1.jpg", Body=b"x")
    client.close()
    return monkeypatch

"""S3 as served by moto's server, with a new bucket for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.moto import Proxy, speak_to


@pytest.fixture
def s3_url(moto_url: str) -> str:
    return moto_url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, s3_url: str, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which AWS clients use moto's server, and none of the machine's own settings."""
    speak_to(s3_url, monkeypatch, tmp_path)
    return monkeypatch


@pytest.fixture
def s3(aws: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: ARG001
    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A new bucket for this test."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def breaking_proxy() -> Iterator[Callable[[str, int, int], Proxy]]:
    """A factory of proxies: the server's URL, the number of connections to break, and after how many bytes."""
    proxies: list[Proxy] = []

    def make(url: str, num_broken: int, after_bytes: int) -> Proxy:
        proxies.append(Proxy(int(url.rpartition(":")[2]), num_broken, after_bytes))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()

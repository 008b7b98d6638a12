"""S3 as moto's server serves it, for each test a bucket of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.moto import Proxy, free_port, moto_server, speak_to


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with moto_server(free_port()) as url:
        yield url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, s3_url: str, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment in which every AWS client speaks to moto's server, and to nothing of the machine's own."""
    speak_to(s3_url, monkeypatch, tmp_path)
    return monkeypatch


@pytest.fixture
def s3(aws: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: ARG001
    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def breaking_proxy() -> Iterator[Callable[[str, int, int], Proxy]]:
    """Makes proxies: the server's address, how many connections to break, after how many bytes."""
    proxies: list[Proxy] = []

    def make(url: str, num_broken: int, after_bytes: int) -> Proxy:
        proxies.append(Proxy(int(url.rpartition(":")[2]), num_broken, after_bytes))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()

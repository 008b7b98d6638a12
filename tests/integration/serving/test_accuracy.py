"""The accuracy that `train` prints is the accuracy over HTTP, on real photos."""

import http.client
from pathlib import Path

import pytest

from support.jobs import FROZEN, Platform
from support.servers import ServerProcess, exchange, running

pytestmark = pytest.mark.gate

POINTS = 0.003


def accuracy_over_http(server: ServerProcess, photos: Path) -> float:
    """The fraction of photos whose predicted label is the name of their folder."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    right = []
    for photo in sorted(photos.rglob("*.jpg")):
        reply = exchange(connection, "POST", "/invocations", photo.read_bytes(), content_type="image/jpeg")
        assert reply.status == 200
        right.append(reply.json()["predicted_label"] == photo.parent.name)
    connection.close()
    return sum(right) / len(right)


@pytest.mark.slow
def test_accuracy_over_http_equals_the_printed_accuracy(
    platform: Platform, clothing_photos: Path, imagenet_weights: Path, tmp_path: Path
) -> None:
    channels = {name: clothing_photos / name for name in ("train", "validation", "test")}
    job = platform.train({**channels, "pretrained": imagenet_weights}, **FROZEN, optimize_for_cpu="true")
    assert job.exit_code == 0
    with running(platform.paths.base, tmp_path / "log") as server:
        found = accuracy_over_http(server, clothing_photos / "test")
    assert found == pytest.approx(job.metrics["test:accuracy"], abs=POINTS)
    assert found > 0.7

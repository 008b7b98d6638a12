"""`serve` in the image: predictions, restricted hosts, graceful shutdown."""

import http.client
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from support.containers import Container, Image, docker, wait_until
from support.drawing import SHAPES, draw_photo, encode

HOSTS = {
    "64 MB of shared memory, 2 GB of memory": ("--shm-size=64m", "--memory=2g"),
    "no shared memory": ("--ipc=none",),
    "another port": ("--env=SAGEMAKER_BIND_TO_PORT=9001", "--publish=127.0.0.1::9001"),
    "read-only root, no privileges, no name": (
        *("--read-only", "--tmpfs=/tmp", "--ipc=none", "--user=12345:12345"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
    ),
}
PING = "import urllib.request as r; print(r.urlopen('http://localhost:8080/ping').status)"


@pytest.mark.parametrize("options", HOSTS.values(), ids=HOSTS)
def test_predictions_on_restricted_hosts(image: Image, trained: Container, options: tuple[str, ...]) -> None:
    container = image.start_serving(trained.paths.model, options=options)
    container.wait_for_ping()
    predicted = [best_label(container.predict(encode(draw_photo(56, 48, shape=shape, seed=7)))) for shape in SHAPES]
    assert predicted == list(SHAPES)


def test_serving_without_a_network(image: Image, trained: Container) -> None:
    options = ("--network=none", "--read-only", "--tmpfs=/tmp", "--user=12345:12345")
    container = image.start("serve", options=(*options, f"--volume={trained.paths.model}:/opt/ml/model:ro"))
    ping_inside(container, "200")


def test_metrics_can_be_read_from_outside(image: Image, trained: Container) -> None:
    options = ("--publish=127.0.0.1::9090", "--env=SERVE_METRICS_HOST=0.0.0.0")
    container = image.start("serve", options=(*options, f"--volume={trained.paths.model}:/opt/ml/model:ro"))
    wait_until(lambda: container.answers("/metrics"), "/metrics")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("part", ["openvino.xml", "openvino.bin", "engine.json"])
def test_weights_are_served_instead_of_a_truncated_graph(
    image: Image, trained: Container, tmp_path: Path, part: str
) -> None:
    model = shutil.copytree(trained.paths.model, tmp_path / "model")
    truncate(model / part)
    container = image.start_serving(model)
    container.wait_for_ping()
    predicted = [best_label(container.predict(encode(draw_photo(56, 48, shape=shape, seed=7)))) for shape in SHAPES]
    assert predicted == list(SHAPES)
    warnings = [line for line in container.log.splitlines() if '"level":"warning"' in line]
    assert any(part in line and "it is not used" in line for line in warnings), container.log


def test_sigterm_drains_requests(image: Image, trained: Container) -> None:
    container = image.start_serving(trained.paths.model)
    container.wait_for_ping()
    outcomes: list[str] = []
    clients = [threading.Thread(target=request_until_refused, args=(container.own_address, outcomes)) for _ in range(4)]
    for client in clients:
        client.start()
    while len(outcomes) < 20:
        assert container.is_running
    exit_code = container.stop(within_s=30)
    for client in clients:
        client.join()
    assert (exit_code, set(outcomes)) == (0, {"answered"})


@pytest.mark.parametrize("delay_s", [0, 0.3])
def test_sigterm_during_the_start_ends_the_server(image: Image, trained: Container, delay_s: float) -> None:
    container = image.start_serving(trained.paths.model)
    time.sleep(delay_s)
    # Before or after the server has handlers of its own; SIGKILL would give 137.
    assert container.stop(within_s=20) in (0, 143)


def test_folder_without_a_model_is_exit_code_1(image: Image, tmp_path: Path) -> None:
    container = image.start_serving(tmp_path)
    assert container.wait() == 1
    assert container.log.startswith("serve: ")
    assert "Traceback" not in container.log


def best_label(answer: dict[str, list[dict[str, object]]]) -> object:
    return answer["predictions"][0]["label"]


def ping_inside(container: Container, expected: str) -> None:
    wait_until(lambda: docker("exec", container.name, "python", "-c", PING, check=False) == expected, "/ping")


def request_until_refused(address: tuple[str, int], outcomes: list[str]) -> None:
    """Send requests until the port is closed, or until the server reports that it is stopping.

    It does so for requests that arrive after SIGTERM on an earlier connection. Accepted requests must be answered.
    """
    photo = encode(draw_photo())
    while True:
        connection = http.client.HTTPConnection(*address, timeout=60)
        try:
            connection.connect()
        except OSError:
            return
        try:
            connection.request("POST", "/invocations", photo, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            if b"this server is stopping" in answer.read():
                return
            outcomes.append("answered" if answer.status == 200 else f"status {answer.status}")
        except OSError as error:
            outcomes.append(f"cut off: {error!r}")
        finally:
            connection.close()

"""What an operator sees of the running program: start line, log, metrics; and that a stalled log stops nothing."""

import http.client
import json
import os
import select
from pathlib import Path
from typing import Any

from support.servers import ServerProcess, drawn_photos, exchange, free_port, running, start


def test_log_and_metrics_describe_the_server_and_its_requests(opt_ml: Path, tmp_path: Path) -> None:
    port = free_port()
    with running(opt_ml, tmp_path / "log", SERVE_METRICS_PORT=str(port)) as server:
        server.invoke(drawn_photos(1)[0], X_Amzn_SageMaker_Inference_Id="id-1")
        server.invoke(b"no photo")
        with server.connect() as sock:
            sock.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
        assert server.request("GET", "/ready").status == 200
        (worker,) = server.workers()
        metrics = scrape(port)
        assert server.request("GET", "/metrics").status == 404
    first, *lines = server.log_lines()
    check_start_line(first, server.port, worker)
    statuses = [(one["status"], one.get("inference_id")) for one in lines]
    assert statuses == [(200, "id-1"), (422, None), (413, None), (404, None)]
    assert (lines[2]["path"], lines[2]["num_bytes"]) == ("/invocations", 99999999999)
    predicted = 'method="POST",model="default",route="/invocations"'
    assert metrics[f'classifier_requests_total{{{predicted},status="200"}}'] == 1
    assert metrics['classifier_refusals_total{reason="TooLargeError"}'] == 1
    assert metrics["classifier_connections"] >= 0
    assert metrics["process_resident_memory_bytes"] > 1e7


def scrape(port: int) -> dict[str, float]:
    """The metrics by name and labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    lines = exchange(connection, "GET", "/metrics").body.decode().splitlines()
    connection.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def check_start_line(line: dict[str, Any], port: int, worker: int) -> None:
    assert (line["message"], line["pid"], line["port"]) == ("ready", worker, port)
    assert line["model"]["architecture"] == "resnet18"
    assert (line["model"]["num_classes"], line["model"]["first_labels"]) == (3, ["000", "001", "002"])
    assert line["engine"].startswith("OpenVINO ")
    assert line["settings"]["max_body_mb"] == 25
    assert {"classifier", "python", "openvino", "pillow"} < set(line["versions"])
    assert "torch" not in line["versions"]


def test_nobody_reads_the_log_and_requests_are_answered(opt_ml: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    server = start(opt_ml, log)
    try:
        server.wait_until_ready()
        fill(log, server)
        assert server.ping() == 200
        assert server.invoke(drawn_photos(1)[0]).status == 200
        assert server.request("GET", "/ready").status == 200
        server.terminate()
        assert server.wait(25) == 0
        assert json.loads(os.read(reader, 1 << 20).splitlines()[0])["message"] == "ready"
    finally:
        server.process.kill()
        server.process.wait()
        os.close(reader)


def fill(log: Path, server: ServerProcess) -> None:
    """Send requests until the pipe of the log is full, and some more."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    descriptor = os.open(log, os.O_WRONLY | os.O_NONBLOCK)
    num_full = 0
    while num_full < 100:
        assert exchange(connection, "GET", "/" + "x" * 500).status == 404
        _, writable, _ = select.select([], [descriptor], [], 0)
        num_full = 0 if writable else num_full + 1
    os.close(descriptor)
    connection.close()

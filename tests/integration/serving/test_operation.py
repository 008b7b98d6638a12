"""What an operator sees of the running program: start line, log, metrics; and that a stalled log stops nothing."""

import http.client
import json
import os
import select
from pathlib import Path
from typing import Any

from support.raw_http import head, read_reply
from support.servers import ServerProcess, drawn_photos, exchange, scrape, start


def test_log_has_a_line_for_the_start_and_one_for_each_request(server: ServerProcess) -> None:
    check_start_line(server.log_lines()[0], server.port)
    for number, (body, status) in enumerate({drawn_photos(1)[0]: 200, b"no photo": 422}.items()):
        assert server.invoke(body, X_Amzn_SageMaker_Inference_Id=f"operation-{number}").status == status
        line = server.wait_for_log_line(inference_id=f"operation-{number}")
        assert (line["method"], line["path"], line["status"]) == ("POST", "/invocations", status)
        assert line["num_bytes"] == len(body)
    with server.connect() as sock:
        sock.sendall(head(Content_Length="88888888888"))
        assert read_reply(sock).status == 413
    line = server.wait_for_log_line(num_bytes=88888888888)
    assert (line["path"], line["status"], line["error"]) == ("/invocations", 413, "TooLargeError")


def test_metrics_count_requests_and_refusals(server: ServerProcess, metrics_port: int) -> None:
    answered = 'classifier_requests_total{method="POST",model="default",route="/invocations",status="200"}'
    refused = 'classifier_refusals_total{reason="ImageError"}'
    before = scrape(metrics_port)
    assert server.invoke(drawn_photos(1)[0]).status == 200
    assert server.invoke(b"no photo").status == 422
    after = scrape(metrics_port)
    assert after[answered] == before.get(answered, 0) + 1
    assert after[refused] == before.get(refused, 0) + 1
    assert after["classifier_connections"] >= 0
    assert after["process_resident_memory_bytes"] > 1e7
    assert server.request("GET", "/ready").status == 200
    assert server.request("GET", "/metrics").status == 404


def test_refused_uploads_are_logged_with_what_arrived_even_if_the_connection_is_reset(server: ServerProcess) -> None:
    for number in range(20):
        # Closed with unread data, so each connection is reset, at any point of the server's response.
        beginning = send_head(server, f"reset-{number}", b"Content-Length: 99999999999")
        assert beginning.startswith(b"HTTP/1.1 413 ")
    assert send_head(server, "malformed", b"Transfer-Encoding: chunked", b"4\r\nfour\r\nX\r\n").startswith(
        b"HTTP/1.1 400 "
    )
    for number in range(20):
        line = server.wait_for_log_line(inference_id=f"reset-{number}")
        assert (line["status"], line["num_bytes"]) == (413, 99999999999)
        assert "at most 26,214,400" in line["message"]
    line = server.wait_for_log_line(inference_id="malformed")
    assert (line["error"], line["num_bytes"], line["path"]) == ("ProtocolError", 4, "/invocations")
    assert [one["message"] for one in server.log_lines() if one.get("logger") == "asyncio"] == []


def send_head(server: ServerProcess, inference_id: str, header: bytes, body: bytes = b"") -> bytes:
    """Send a request with one more header and return the beginning of the response."""
    with server.connect() as sock:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Amzn-SageMaker-Inference-Id: %s\r\n%s\r\n\r\n"
        sock.sendall(head % (inference_id.encode(), header) + body)
        return sock.recv(20)


def check_start_line(line: dict[str, Any], port: int) -> None:
    assert (line["message"], line["port"]) == ("ready", port)
    assert line["pid"] > 1
    assert line["model"]["architecture"] == "squeezenet1_1"
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

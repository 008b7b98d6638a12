"""HTTP clients that are not ours: one answer whatever way a body is sent, and connections that are reused."""

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import Usage
from support import foreign
from support.drawing import draw_photo, encode
from support.foreign import Client, Transfer
from support.marks import GATE
from support.raw_http import chunked_request, head, read_all, read_replies, read_reply, request
from support.servers import ServerProcess

PHOTO = encode(draw_photo(500, 375))
# Past the size from which curl asks for a "100 Continue"; decoders ignore what follows a photo.
LARGE_PHOTO = PHOTO + bytes(1_500_000)
CLIENTS: dict[str, tuple[Client, str]] = {
    "curl": (foreign.with_curl, "curl"),
    "requests": (foreign.with_requests, ""),
    "httpx": (foreign.with_httpx, ""),
    "aiohttp": (foreign.with_aiohttp, ""),
    "fetch": (foreign.with_fetch, "node"),
    "node-http": (foreign.with_node_http, "node"),
}


def bodies() -> list[tuple[bytes, str]]:
    pixels = io.BytesIO()
    np.save(pixels, np.stack([np.asarray(draw_photo(80, 60, seed=seed)) for seed in range(3)]))
    document = json.dumps({"image": base64.b64encode(PHOTO).decode()})
    return [
        (PHOTO, "image/jpeg"),
        (LARGE_PHOTO, "image/jpeg"),
        (document.encode(), "application/json"),
        (pixels.getvalue(), "application/x-npy"),
    ]


def require(program: str) -> None:
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed on this machine")


@pytest.mark.parametrize("name", [pytest.param(name, marks=GATE if name == "node-http" else ()) for name in CLIENTS])
def test_answer_is_the_same_for_chunked_and_plain_bodies(server: ServerProcess, name: str) -> None:
    send, program = CLIENTS[name]
    require(program)
    expected = [server.invoke(body, kind) for body, kind in bodies()]
    assert {one.status for one in expected} == {200}
    transfers = [Transfer(body, kind, chunked) for chunked in (True, False, True) for body, kind in bodies()]
    done = send(f"{server.url}/invocations", transfers)
    assert done.replies == [(200, one.body) for one in expected] * 3
    # Node's fetch opens a second one before it knows that the first is free again.
    assert done.num_connections <= (2 if name == "fetch" else 1)


@pytest.mark.parametrize("chunk", [1000, 7, len(PHOTO)])
def test_chunks_of_any_size_are_joined(server: ServerProcess, chunk: int) -> None:
    small = encode(draw_photo(64, 64))
    with server.connect() as sock:
        sock.sendall(chunked_request(small, chunk=chunk))
        assert read_reply(sock).body == server.invoke(small).body


def test_request_after_chunks_with_extensions_and_trailers_is_read(server: ServerProcess) -> None:
    half = len(PHOTO) // 2
    chunks = b"%x;name=value\r\n%s\r\n" % (half, PHOTO[:half]) + b"%X\r\n%s\r\n" % (len(PHOTO) - half, PHOTO[half:])
    with server.connect() as sock:
        sock.sendall(head(Transfer_Encoding="chunked") + chunks + b"0\r\nX-Checksum: 1\r\n\r\n" + request(PHOTO))
        replies = read_replies(sock, 2)
    assert [one.body for one in replies] == [server.invoke(PHOTO).body] * 2


def test_client_of_http_1_0_is_answered_and_closed(server: ServerProcess) -> None:
    with server.connect() as sock:
        sock.sendall(request(PHOTO, version="1.0", Host=None))
        answer = read_all(sock)
    assert re.match(rb"HTTP/1\.[01] 200 ", answer)
    assert answer.endswith(server.invoke(PHOTO).body)


def test_client_of_http_1_0_gets_no_continue(server: ServerProcess) -> None:
    message = request(PHOTO, version="1.0", Expect="100-continue")
    with server.connect() as sock:
        sock.sendall(message[: -len(PHOTO)])
        server.ping()  # by then the header has been read
        sock.sendall(PHOTO)
        assert re.match(rb"HTTP/1\.[01] 200 ", read_all(sock))


def test_curl_is_told_to_continue_with_a_large_body(server: ServerProcess, tmp_path: Path) -> None:
    require("curl")
    path = tmp_path / "photo.jpg"
    path.write_bytes(LARGE_PHOTO)
    command = ["curl", "--silent", "--verbose", "--noproxy", "*", "--header", "Content-Type: image/jpeg"]
    # It would send the body unasked after a second, which a busy machine may take to answer.
    options = ["--expect100-timeout", "30", "--data-binary", f"@{path}", f"{server.url}/invocations"]
    done = subprocess.run([*command, *options], capture_output=True, timeout=60, check=True)
    assert done.stderr.count(b"< HTTP/1.1 100 Continue") == 1
    assert done.stdout == server.invoke(PHOTO).body


def test_refused_expectation_is_answered_without_continue(server: ServerProcess) -> None:
    with server.connect() as sock:
        sock.sendall(head(Expect="100-continue", Content_Length="999999999"))
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("message", [request(PHOTO), chunked_request(PHOTO)], ids=["plain", "chunked"])
def test_half_closing_caller_gets_the_answer(server: ServerProcess, message: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock).body == server.invoke(PHOTO).body


def test_clients_that_leave_before_the_answer_leave_no_connection_open(server: ServerProcess) -> None:
    (worker,) = server.workers()
    server.invoke(PHOTO)
    before = settled_descriptors(worker)
    for _ in range(10):
        with server.connect() as sock:
            sock.sendall(request(PHOTO, Connection="close"))
        with server.connect() as sock:
            sock.sendall(request(PHOTO))
    assert server.invoke(PHOTO).status == 200
    assert settled_descriptors(worker) <= before


def settled_descriptors(worker: int) -> int:
    """The fewest descriptors within a second, by which all closed connections are forgotten."""
    found = []
    for _ in range(10):
        time.sleep(0.1)
        found.append(Usage.of(worker).num_descriptors)
    return min(found)

"""Starting, stopping and restarting: SIGTERM answers what was accepted, and a killed worker is replaced."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import pytest

from support.raw_http import chunked_request, head, read_reply, request
from support.servers import ServerProcess, drawn_photos, free_port, running, scrape, start

PHOTO = drawn_photos(3)[2]
PLAIN, CHUNKED = request(PHOTO), chunked_request(PHOTO)
PING = head(None, method="GET", target="/ping")


def test_accepted_requests_are_answered_after_sigterm(opt_ml: Path, tmp_path: Path) -> None:
    with running(opt_ml, tmp_path / "log") as server, ExitStack() as stack:
        idle, whole, half = ([stack.enter_context(server.connect()) for _ in range(20)] for _ in range(3))
        for sock in idle:
            sock.sendall(PING)
            assert read_reply(sock).status == 200
        for index in range(20):
            message = CHUNKED if index % 2 else PLAIN
            whole[index].sendall(message)
            half[index].sendall(message[:-100])
        server.ping()  # once it is answered, all of them have been read
        server.terminate()
        while server.ping() == 200:
            time.sleep(0.01)
        # Also a second time: that is no reason to drop them.
        server.terminate()
        for index, sock in enumerate(half):
            sock.sendall((CHUNKED if index % 2 else PLAIN)[-100:])
        assert [read_reply(sock).status for sock in [*whole, *half]] == [200] * 40
        assert server.ping() in (None, 503)
        # Neither the idle connections nor the answered ones, all still open, delay the end.
        assert server.wait(15) == 0


@pytest.mark.slow
@pytest.mark.gate
def test_requests_sent_before_sigterm_are_answered_under_load(opt_ml: Path, tmp_path: Path) -> None:
    stopping, lost, num_answered = threading.Event(), [], []

    def call(message: bytes, keep_alive: bool) -> None:
        """Send requests until the server is gone; whatever was sent before SIGTERM must be answered."""
        sock = None
        while True:
            is_early = False
            try:
                sock = sock or server.connect()
                sock.sendall(message)
                is_early = not stopping.is_set()
                reply = read_reply(sock)
                num_answered.append(1)
                if is_early and reply.status != 200:
                    lost.append(reply)
                if keep_alive and reply.headers.get("connection", "") != "close":
                    continue
            except OSError as error:
                if is_early:
                    lost.append(error)
                if stopping.is_set():
                    if sock is not None:
                        sock.close()
                    break
            sock, closing = None, sock
            if closing is not None:
                closing.close()

    with running(opt_ml, tmp_path / "log") as server:
        callers = [
            threading.Thread(target=call, args=(message, keep_alive))
            for message in (PLAIN, CHUNKED)
            for keep_alive in (True, False)
            for _ in range(2)
        ]
        for caller in callers:
            caller.start()
        while len(num_answered) < 100:
            time.sleep(0.01)
        stopping.set()
        server.terminate()
        assert server.wait(30) == 0
        for caller in callers:
            caller.join()
    assert lost == []


def test_killed_worker_loses_at_most_the_requests_in_flight(server: ServerProcess) -> None:
    stopping, answered = threading.Event(), threading.Semaphore(0)

    def call(_: int) -> int:
        """Send one request after another, each over a connection of its own; return how many were lost."""
        num_lost = 0
        while not stopping.is_set():
            try:
                assert server.invoke(PHOTO).status == 200
                answered.release()
            except (OSError, HTTPException):
                num_lost += 1
        return num_lost

    def wait_for(num_answers: int) -> None:
        for _ in range(num_answers):
            assert answered.acquire(timeout=60)

    with ThreadPoolExecutor(6) as callers:
        lost = callers.map(call, range(6))
        wait_for(20)
        (killed,) = server.workers()
        os.kill(killed, signal.SIGKILL)
        while killed in server.workers():
            time.sleep(0.01)
        wait_for(40)
        stopping.set()
        assert max(lost) <= 1


def test_killed_worker_is_replaced(server: ServerProcess, metrics_port: int) -> None:
    num_restarts = scrape(metrics_port)["classifier_worker_restarts_total"]
    (killed,) = server.workers()
    os.kill(killed, signal.SIGKILL)
    while killed in server.workers():
        time.sleep(0.01)
    # A request that arrives meanwhile waits for the next worker.
    start_s = time.monotonic()
    assert server.invoke(PHOTO).status == 200
    assert server.ping() == 200
    # Three seconds are promised, of an idle machine.
    assert time.monotonic() - start_s < 30
    assert len(server.workers()) == 1
    assert scrape(metrics_port)["classifier_worker_restarts_total"] == num_restarts + 1
    reports = [one["message"] for one in server.log_lines() if one.get("logger") == "gunicorn.error"]
    assert [one for one in reports if f"pid:{killed}" in one and "SIGKILL" in one]


def test_error_names_the_damaged_file(opt_ml: Path, tmp_path: Path) -> None:
    base = tmp_path / "opt_ml"
    shutil.copytree(opt_ml, base)
    # Damaged graphs alone are replaced by a conversion of the weights.
    for name in ("openvino.xml", "model.safetensors"):
        (base / "model" / name).write_bytes(b"damaged")
    environment = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(free_port())}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("serve"))],
        env={**os.environ, "SERVE_METRICS_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_during_startup_stops_the_server(opt_ml: Path, tmp_path: Path) -> None:
    server = start(opt_ml, tmp_path / "log")
    while not server.workers():
        assert server.process.poll() is None
        time.sleep(0.01)
    server.terminate()
    server.wait(30)
    assert "Traceback" not in server.log.read_text()

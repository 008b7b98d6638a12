"""The transport: no client waits for a slow one, and every request is answered."""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from classifier.serving.front import IS_WANTED, REQUEST_ERROR, Front
from classifier.serving.http import Environ
from classifier.serving.settings import ServerSettings

WAIT_S = 30.0
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """A WSGI application: ``/ping`` at once, ``/slow`` after ``go``, all else echoes the body."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        self.was_wanted: list[bool] = []

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if REQUEST_ERROR in environ:
            start_response("503 Rejected", [])
            return [type(environ[REQUEST_ERROR]).__name__.encode()]
        if environ["PATH_INFO"] == "/broken":
            raise ValueError("a secret")
        if environ["PATH_INFO"] == "/slow":
            self.began.release()
            assert self.go.wait(WAIT_S)
            self.was_wanted.append(environ[IS_WANTED]())
        body = b"large" * 400_000 if environ["PATH_INFO"] == "/large" else environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]


class Running:
    """A front running in a thread."""

    def __init__(self, settings: ServerSettings, **arguments: Any) -> None:
        self.app = App()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.front = Front([listener], self.app, settings, inline=frozenset({"/ping"}), **arguments)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.front.run_once(0.02)
        self.front.drain(within_s=20, receive_s=1, linger_s=0.1, tick=lambda: None)
        self.front.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=WAIT_S)

    def stop(self) -> None:
        self.stopping.set()

    def join(self) -> None:
        self.stop()
        self.app.go.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@contextmanager
def running(**arguments: Any) -> Iterator[Running]:
    settings = arguments.pop("settings", ServerSettings(max_requests=2, max_body_mb=1))
    one = Running(settings, **arguments)
    try:
        yield one
    finally:
        one.join()


@pytest.fixture
def front() -> Iterator[Running]:
    with running() as one:
        yield one


def read(sock: socket.socket) -> tuple[int, bytes]:
    """Read one response: its status and body."""
    stream = sock.makefile("rb")
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, stream.read(length)


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


def test_requests_are_answered_with_their_bodies(front: Running) -> None:
    with front.connect() as sock:
        for body in (b"one", b"", b"three" * 50_000):
            sock.sendall(post(b"/", body))
            assert read(sock) == (200, body)


def test_ping_is_answered_and_others_are_rejected_while_every_thread_works(front: Running) -> None:
    working = [front.connect() for _ in range(2)]
    for sock in working:
        sock.sendall(GET % b"/slow")
        assert front.app.began.acquire(timeout=WAIT_S)
    with front.connect() as sock:
        sock.sendall(GET % b"/ping")
        assert read(sock) == (200, b"")
        sock.sendall(GET % b"/slow")
        assert read(sock) == (503, b"BusyError")
    front.app.go.set()
    for sock in working:
        assert read(sock)[0] == 200
        sock.close()


def test_slow_senders_do_not_delay_others(front: Running) -> None:
    senders = [front.connect() for _ in range(40)]
    for sock in senders:
        sock.sendall(post(b"/", b"body")[:-1])
    with front.connect() as sock:
        for path in (b"/ping", b"/"):
            sock.sendall(GET % path)
            assert read(sock) == (200, b"")
    for sock in senders:
        sock.sendall(b"y")
        assert read(sock) == (200, b"body")
        sock.close()


def test_request_that_arrives_too_slowly_is_rejected_and_closed() -> None:
    now = [0.0]
    with running(clock=lambda: now[0]) as front, front.connect() as sock:
        sock.sendall(post(b"/", b"body")[:-1])
        with front.connect() as other:
            other.sendall(GET % b"/ping")
            read(other)
        now[0] = 1000
        assert read(sock) == (503, b"TooSlowError")
        assert sock.recv(1) == b""


def test_pipelined_requests_are_answered_in_order(front: Running) -> None:
    with front.connect() as sock:
        sock.sendall(b"".join(post(b"/", b"%d" % number) for number in range(2000)))
        stream = sock.makefile("rb")
        for number in range(2000):
            length = len(str(number))
            lines = [stream.readline() for _ in range(4)]
            assert lines[0] == b"HTTP/1.1 200 OK\r\n"
            assert stream.read(length) == b"%d" % number


def test_slow_reader_gets_the_whole_response(front: Running) -> None:
    with front.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        sock.sendall(GET % b"/large")
        with front.connect() as other:
            other.sendall(GET % b"/ping")
            assert read(other) == (200, b"")
        assert read(sock) == (200, b"large" * 400_000)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"nonsense\r\n\r\n", b"RequestError"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"TooLargeError"),
    ],
)
def test_rejecting_an_incomplete_request_closes_its_connection(front: Running, data: bytes, error: bytes) -> None:
    with front.connect() as sock:
        sock.sendall(data)
        assert read(sock) == (503, error)
        assert sock.recv(1) == b""


def test_disconnected_client_is_detected(front: Running) -> None:
    sock = front.connect()
    sock.sendall(GET % b"/slow")
    assert front.app.began.acquire(timeout=WAIT_S)
    sock.close()
    with front.connect() as other:
        # By the time that it answers these, the front has processed the disconnection.
        for _ in range(3):
            other.sendall(GET % b"/ping")
            read(other)
    front.app.go.set()
    front.join()
    assert front.app.was_wanted == [False]


def test_flood_of_silent_clients_locks_nobody_out() -> None:
    with running(max_connections=20) as front:
        silent = [front.connect() for _ in range(60)]
        with front.connect() as sock:
            sock.sendall(GET % b"/ping")
            assert read(sock) == (200, b"")
        for one in silent:
            one.close()


def test_bodies_that_would_fill_the_memory_are_rejected() -> None:
    settings = ServerSettings(max_requests=2, max_body_mb=0.6, max_buffered_mb=0.7)
    half = post(b"/", bytes(500_000))
    with running(settings=settings) as front, front.connect() as first, front.connect() as second:
        first.sendall(half[:-1])
        with front.connect() as other:
            other.sendall(GET % b"/ping")
            read(other)
        second.sendall(half)
        assert read(second) == (503, b"BusyError")
        first.sendall(half[-1:])
        assert read(first) == (200, bytes(500_000))


def test_exception_of_the_application_is_logged_not_exposed(front: Running, caplog: pytest.LogCaptureFixture) -> None:
    with front.connect() as sock:
        sock.sendall(GET % b"/broken")
        status, body = read(sock)
        assert status == 500
        assert json.loads(body)["error"]["type"] == "InternalError"
        assert b"secret" not in body
        sock.sendall(GET % b"/ping")
        assert read(sock) == (200, b"")
    assert "a secret" in caplog.text


def test_draining_answers_every_request_that_has_begun(front: Running) -> None:
    working, arriving, idle = front.connect(), front.connect(), front.connect()
    idle.sendall(GET % b"/ping")
    read(idle)
    working.sendall(GET % b"/slow")
    assert front.app.began.acquire(timeout=WAIT_S)
    arriving.sendall(post(b"/", b"body")[:-1])
    with front.connect() as other:
        other.sendall(GET % b"/ping")
        read(other)
    front.stop()
    idle.sendall(GET % b"/ping")
    assert read(idle) in ((503, b"UnavailableError"), (200, b""))
    arriving.sendall(b"y")
    assert read(arriving) == (200, b"body")
    front.app.go.set()
    assert read(working)[0] == 200
    front.thread.join(WAIT_S)
    with pytest.raises(OSError, match="refused"):
        front.connect()
    for sock in (working, arriving, idle):
        sock.close()

"""The transport: no client waits for a slow one, every request is answered, and hostile ones cost little."""

import gc
import itertools
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from hypothesis import given
from hypothesis import strategies as st

from classifier.serving.asgi import IS_WANTED, REQUEST_ERROR, Adapter, Admission, Environ
from classifier.serving.connections import Connections
from classifier.serving.errors import ProtocolError
from classifier.serving.settings import MIB, ServerSettings
from classifier.serving.telemetry import Telemetry
from classifier.serving.worker import ServerWorker

WAIT_S = 30.0
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class App:
    """A WSGI application: ``/ping`` at once, ``/slow`` after ``go``, all else echoes the body."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        self.was_wanted: list[bool] = []
        self.environ: Environ = {}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.environ = environ
        if REQUEST_ERROR in environ:
            error = environ[REQUEST_ERROR]
            start_response(str(error.status if isinstance(error, ProtocolError) else 503), [])
            return [f"{type(error).__name__}: {error}".encode()]
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
    """A worker running in a thread."""

    def __init__(self, settings: ServerSettings, max_connections: int = 1000) -> None:
        self.app = App()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        admission, self.telemetry = Admission(), Telemetry()
        adapter = Adapter(self.app, settings, admission, inline=frozenset({"/ping"}))
        self.connections = Connections(settings, adapter, admission, self.telemetry, max_connections=max_connections)
        self.worker = self._worker(listener)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def _worker(self, listener: socket.socket) -> ServerWorker:
        configuration = Config()
        configuration.set("keepalive", 75)
        application = SimpleNamespace(wsgi=lambda: self.connections)
        socket_of_gunicorn = SimpleNamespace(sock=listener, close=listener.close)
        log = Logger(configuration)
        worker = ServerWorker(1, os.getppid(), [socket_of_gunicorn], application, 60, configuration, log)
        worker.load_connections()
        worker._setup_event_loop()
        return worker

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=WAIT_S)

    def send(self, data: bytes) -> socket.socket:
        sock = self.connect()
        sock.sendall(data)
        return sock

    def stop(self) -> None:
        self.worker.alive = False

    def join(self) -> None:
        self.stop()
        self.app.go.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.worker.tmp.close()


@contextmanager
def serving(max_connections: int = 1000, **settings: Any) -> Iterator[Running]:
    running = Running(ServerSettings(**{"max_requests": 2, "max_body_mb": 1, **settings}), max_connections)
    try:
        yield running
    finally:
        running.join()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One that no test blocks or stops."""
    with serving() as one:
        yield one


@pytest.fixture
def own() -> Iterator[Running]:
    with serving() as one:
        yield one


def read_reply(sock: socket.socket) -> tuple[int, bytes]:
    """The status and body of the next response."""
    stream = sock.makefile("rb")
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, stream.read(length)


def read_replies(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of the next responses, each of one byte."""
    data = b""
    while data.count(b"\r\n\r\n") < count or len(data.rsplit(b"\r\n\r\n", 1)[1]) < 1:
        data += sock.recv(65536)
    return [one.partition(b"\r\n\r\n")[2] for one in data.split(b"HTTP/1.1 ")[1:]]


def post(body: bytes, path: bytes = b"/echo") -> bytes:
    return POST % (path, len(body), body)


def is_closed(sock: socket.socket) -> bool:
    """Whether the server closes the connection, after whatever it still sends."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


# Requests and responses


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_requests_are_answered_with_their_bodies(shared: Running, size: int) -> None:
    body = os.urandom(size)
    with shared.send(post(body)) as sock:
        assert read_reply(sock) == (200, body)


@pytest.mark.parametrize("num_bytes", [64, 1000, 100_000])
def test_chunked_body_equals_one_of_known_length(shared: Running, num_bytes: int) -> None:
    body = os.urandom(500_000)
    parts = [body[start : start + num_bytes] for start in range(0, len(body), num_bytes)]
    with shared.send(CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n") as sock:
        assert read_reply(sock) == (200, body)
    assert shared.app.environ["CONTENT_LENGTH"] == "500000"
    assert "HTTP_TRANSFER_ENCODING" not in shared.app.environ


def test_request_reaches_the_wsgi_environment(shared: Running) -> None:
    head = (
        b"POST /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Type: t/x\r\nX-One: 1\r\nX-One: 2\r\nContent-Length: 2\r\n\r\n"
    )
    with shared.send(head + b"hi") as sock:
        read_reply(sock)
    environ = shared.app.environ
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("POST", "/a b", "x=1")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"], environ["HTTP_X_ONE"]) == ("t/x", "2", "1,2")


def test_target_may_be_absolute(shared: Running) -> None:
    with shared.send(b"GET http://host:80/a/b?c=d HTTP/1.1\r\nHost: host\r\n\r\n") as sock:
        read_reply(sock)
    assert (shared.app.environ["PATH_INFO"], shared.app.environ["QUERY_STRING"]) == ("/a/b", "c=d")


def test_header_with_an_underscore_is_not_mistaken_for_another(shared: Running) -> None:
    with shared.send(b"POST / HTTP/1.1\r\nHost: x\r\ncontent_type: a/b\r\nContent-Length: 0\r\n\r\n") as sock:
        read_reply(sock)
    assert "CONTENT_TYPE" not in shared.app.environ


def test_pipelined_requests_are_answered_in_order(shared: Running) -> None:
    with shared.send(b"".join(post(b"%d" % n) for n in range(9))) as sock:
        assert read_replies(sock, 9) == [b"%d" % n for n in range(9)]


def test_slow_reader_gets_the_whole_response(shared: Running) -> None:
    with shared.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(GET % b"/large")
        assert read_reply(sock) == (200, b"large" * 400_000)


def test_head_is_answered_without_a_body(shared: Running) -> None:
    with shared.send(b"HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n" + GET % b"/ping") as sock:
        replies = b""
        while replies.count(b"\r\n\r\n") < 2:
            replies += sock.recv(65536)
    assert replies.count(b"HTTP/1.1 200 OK") == 2
    assert b"large" not in replies


def test_expectation_is_answered_before_the_body_is_sent(shared: Running) -> None:
    with shared.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert read_reply(sock) == (200, b"ok")


def test_exception_of_the_application_is_not_exposed(shared: Running) -> None:
    with shared.send(GET % b"/broken") as sock:
        status, body = read_reply(sock)
    assert status == 500
    assert b"secret" not in body


# Invalid requests


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"GARBAGE\r\n\r\n", 400, "Invalid request line"),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 400, "HTTP/3.0"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "host"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, ""),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "too large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400, "digit"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "Content-Length"),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"0\r\n\r\n", 400, "Content-Length"),
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n", 501, "'gzip, chunked' is not supported"),
        (CHUNKED.replace(b"chunked", b"gzip") + b"0\r\n\r\n", 400, "chunked"),
        (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", 400, "HTTP/1.0"),
        (CHUNKED + b"xyz\r\n", 400, ""),
        (CHUNKED + b"1\r\na\r\n" * 600, 400, "chunks of less than 64 bytes"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * 9000, 431, ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: aaaa\r\n" * 200 + b"\r\n", 431, ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 1000 + b"\r\n") * 50 + b"\r\n", 431, "32,768"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 1000 + b"\r\n") * 50, 431, "32,768"),
    ],
)
def test_invalid_request_is_refused_by_the_application_and_closed(
    shared: Running, data: bytes, status: int, message: str
) -> None:
    with shared.send(data) as sock:
        reply_status, body = read_reply(sock)
        assert (reply_status, message.lower() in body.decode().lower()) == (status, True), body
        assert body.startswith(b"ProtocolError")
        assert is_closed(sock)


def test_headers_of_a_pipelined_request_are_limited(shared: Running) -> None:
    large = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 1000 + b"\r\n") * 50 + b"\r\n"
    with shared.send(post(b"first") + large) as sock:
        stream = b""
        while chunk := sock.recv(65536):
            stream += chunk
    assert b"first" in stream
    assert b"HTTP/1.1 431 " in stream


def test_what_was_parsed_of_an_invalid_request_is_passed_on(shared: Running) -> None:
    with shared.send(b"POST /invocations?a=b HTTP/1.1\r\nHost : x\r\n\r\n") as sock:
        read_reply(sock)
    environ = shared.app.environ
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("POST", "/invocations", "a=b")


def test_body_over_the_limit_is_refused_before_it_arrives(shared: Running) -> None:
    with shared.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n") as sock:
        assert read_reply(sock) == (503, b"TooLargeError: a body of 1,048,577 bytes; at most 1,048,576 are allowed")


def test_client_that_still_sends_reads_why_it_was_refused(shared: Running) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (MIB // 2, bytes(MIB // 2)) for _ in range(20))
    with shared.connect() as sock:
        sock.sendall(CHUNKED + body)
        assert read_reply(sock)[1].startswith(b"TooLargeError: a body of more than 1,048,576 bytes")


@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: x\r\n", CHUNKED]))
def test_arbitrary_bytes_never_disturb_the_next_client(shared: Running, data: bytes, prefix: bytes) -> None:
    with shared.send(prefix + data):
        pass
    with shared.send(GET % b"/ping") as sock:
        assert read_reply(sock) == (200, b"")


@given(cuts=st.lists(st.integers(min_value=1, max_value=200), max_size=5))
def test_request_does_not_depend_on_how_its_bytes_are_split(shared: Running, cuts: list[int]) -> None:
    data = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    with shared.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in itertools.pairwise(places):
            sock.sendall(data[start:end])
        assert read_reply(sock) == (200, b"hello world")


# Load


def test_ping_is_answered_and_others_are_refused_while_every_thread_works(own: Running) -> None:
    blocked = [own.send(GET % b"/slow") for _ in range(2)]
    for _ in blocked:
        assert own.app.began.acquire(timeout=WAIT_S)
    with own.send(GET % b"/ping") as sock:
        assert read_reply(sock)[0] == 200
    with own.send(GET % b"/echo") as sock:
        assert read_reply(sock) == (503, b"BusyError: the queue is full")
    own.app.go.set()
    for sock in blocked:
        assert read_reply(sock)[0] == 200
        sock.close()
    with own.send(post(b"again")) as sock:
        assert read_reply(sock) == (200, b"again")


def test_slow_senders_do_not_delay_others(shared: Running) -> None:
    stalled = [shared.send(post(b"x" * 1000)[:-1]) for _ in range(50)]
    with shared.send(post(b"quick")) as sock:
        assert read_reply(sock) == (200, b"quick")
    for sock in stalled:
        sock.sendall(b"x")
        assert read_reply(sock) == (200, b"x" * 1000)
        sock.close()


def test_client_that_has_closed_its_sending_side_is_answered(own: Running) -> None:
    with own.send(GET % b"/slow") as sock:
        assert own.app.began.acquire(timeout=WAIT_S)
        sock.shutdown(socket.SHUT_WR)
        own.app.go.set()
        assert read_reply(sock)[0] == 200
        assert is_closed(sock)
    assert own.app.was_wanted == [True]


def test_client_that_closes_before_its_request_is_complete_is_forgotten(own: Running) -> None:
    with own.send(post(b"x" * 100)[:-1]) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert is_closed(sock)
    wait_until(lambda: not len(own.connections))
    assert own.connections.num_buffered == 0


def test_reset_connection_is_not_wanted(own: Running) -> None:
    sock = own.send(GET % b"/slow")
    assert own.app.began.acquire(timeout=WAIT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
    wait_until(lambda: not len(own.connections))
    own.app.go.set()
    wait_until(lambda: own.app.was_wanted == [False])


# Limits


def test_flood_of_silent_clients_locks_nobody_out() -> None:
    with serving(max_connections=20) as running:
        uploads = [running.send(post(b"x" * 1000)[:-1]) for _ in range(5)]
        wait_until(lambda: len(running.connections) == 5)
        silent = [running.connect() for _ in range(60)]
        with running.send(GET % b"/ping") as sock:
            assert read_reply(sock)[0] == 200
        for sock in uploads:
            sock.sendall(b"x")
            assert read_reply(sock) == (200, b"x" * 1000)
        for sock in [*uploads, *silent]:
            sock.close()


def test_connections_whose_head_trickles_give_way_before_uploads() -> None:
    with serving(max_connections=8) as running:
        upload = running.send(post(b"x" * 1000)[:-1])
        wait_until(lambda: len(running.connections) == 1)
        trickling = [running.send(b"GET / HTTP/1.1\r\nHo") for _ in range(7)]
        wait_until(lambda: sum(one.is_receiving_head for one in running.connections) == 7)
        with running.send(GET % b"/ping") as sock:
            assert read_reply(sock)[0] == 200
        upload.sendall(b"x")
        assert read_reply(upload) == (200, b"x" * 1000)
        for sock in [upload, *trickling]:
            sock.close()


def test_head_that_takes_too_long_is_refused() -> None:
    with serving(header_timeout_s=0.2) as running, running.send(b"GET / HTTP/1.1\r\n") as sock:
        status, body = read_reply(sock)
        assert (status, body) == (503, b"TooSlowError: the headers did not arrive within 0.2 s")
        assert is_closed(sock)


def test_body_that_pauses_too_long_is_refused() -> None:
    with serving(receive_timeout_s=0.2) as running, running.send(post(b"abc")[:-1]) as sock:
        assert read_reply(sock) == (503, b"TooSlowError: nothing of the body arrived for 0.2 s")
        assert is_closed(sock)


def test_body_that_arrives_too_slowly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.serving.connections.GRACE_S", 0.3)
    monkeypatch.setattr("classifier.serving.connection.RATE_HALF_LIFE_S", 0.1)
    with serving(min_upload_kb_s=1000) as running, running.send(post(b"x" * 100_000)[:-90_000]) as sock:
        for _ in range(100):
            if running.telemetry.registry.get_sample_value("classifier_receive_timeouts_total"):
                break
            sock.sendall(b"x")
            threading.Event().wait(0.05)
        assert read_reply(sock) == (503, b"TooSlowError: the body arrives at less than 1000 KiB/s")


def test_slowest_large_upload_gives_way_where_memory_is_short() -> None:
    with serving(max_body_mb=4, max_buffered_mb=8) as running:
        first = running.send(post(bytes(3 * MIB))[:-MIB])
        wait_until(lambda: running.connections.num_buffered >= 2 * MIB)
        threading.Event().wait(0.5)
        # 1/8 of the room is kept for small bodies, so the three do not fit.
        others = [running.send(post(bytes(3 * MIB))[:-1]) for _ in range(2)]
        assert read_reply(first) == (503, b"BusyError: too many request bodies are in transit")
        with running.send(post(b"small" * 1000)) as sock:
            assert read_reply(sock) == (200, b"small" * 1000)
        for sock in others:
            sock.sendall(bytes(1))
            assert read_reply(sock) == (200, bytes(3 * MIB))
        for sock in [first, *others]:
            sock.close()
        wait_until(lambda: running.connections.num_buffered == 0)


# Shutdown


def test_draining_answers_every_request_that_has_begun(own: Running) -> None:
    slow, half, idle = own.send(GET % b"/slow"), own.send(post(b"half")[:-2]), own.connect()
    assert own.app.began.acquire(timeout=WAIT_S)
    wait_until(lambda: len(own.connections) == 3)
    own.stop()
    wait_until(lambda: own.connections.admission.is_draining)
    half.sendall(b"lf")
    assert read_reply(half) == (200, b"half")
    own.app.go.set()
    assert read_reply(slow)[0] == 200
    for sock in (slow, half, idle):
        assert is_closed(sock)
        sock.close()
    own.thread.join(WAIT_S)
    with pytest.raises(ConnectionRefusedError):
        own.connect()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(round(WAIT_S / 0.02)):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("not in time")


def test_memory_is_returned_every_ten_seconds_while_no_request_is_in_progress() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    settings, admission, times = ServerSettings(), Admission(), [0.0]
    adapter = Adapter(App(), settings, admission)
    connections = Connections(settings, adapter, admission, Telemetry(), 10, clock=lambda: times[0])
    gc.disable()
    try:
        garbage = weakref.ref(Cycle())
        times[0] = 9.0
        connections.sweep()
        assert garbage() is not None
        times[0], admission.num_in_flight = 11.0, 1
        connections.sweep()
        assert garbage() is not None
        admission.num_in_flight = 0
        connections.sweep()
        assert garbage() is None
    finally:
        gc.enable()

"""The HTTP transport: one event loop that reads complete requests, passes them to threads, and writes the responses.

Only the loop waits for clients, so slow or silent ones can't occupy the threads that decode photos. Requests that never
wait for the model, such as ``/ping``, are answered on the loop at once, whatever the load.
"""

import enum
import logging
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from classifier.serving.errors import BusyError, RequestError, TooSlowError, UnavailableError
from classifier.serving.http import Environ, Reply, Request, RequestReader, WsgiApp, call, environ_of, failure
from classifier.serving.settings import ServerSettings

# Keys of the WSGI environment, for the application.
REQUEST_ERROR = "classifier.error"  # an exception to answer this request with
IS_WANTED = "classifier.is_wanted"  # a function that returns whether the client is still connected

RECEIVE_BYTES = 128 * 1024
MAX_PIPELINED = 64 * 1024
KEEP_ALIVE_S = 75.0
LINGER_S = 2.0
SWEEP_S = 0.5

_log = logging.getLogger(__name__)


class State(enum.Enum):
    """The state of a connection within the cycle of a request."""

    READING = enum.auto()  # also idle between two requests
    WORKING = enum.auto()
    WRITING = enum.auto()
    LINGERING = enum.auto()  # answered and closed for writing; further data is discarded
    CLOSED = enum.auto()


@dataclass(eq=False)
class Connection:
    """A client's socket with its buffers and state."""

    sock: socket.socket
    reader: RequestReader
    since: float
    state: State = State.READING
    events: int = 0
    is_late: bool = False
    keep_alive: bool = True
    is_disconnected: bool = False
    pipelined: bytearray = field(default_factory=bytearray)
    outbox: memoryview = field(default_factory=lambda: memoryview(b""))
    num_buffered: int = 0  # bytes of the request's body in memory

    def is_wanted(self) -> bool:
        """Whether the client still waits for the response."""
        return not self.is_disconnected


class Front:
    """Serves a WSGI application on listening sockets, with ``settings.max_requests`` threads.

    Args:
        inline: paths that the application answers without waiting, on the loop's thread.
        max_connections: above it, the connection that has been idle longest is closed.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        app: WsgiApp,
        settings: ServerSettings,
        *,
        inline: frozenset[str] = frozenset(),
        max_connections: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listeners = list(listeners)
        self._app = app
        self._settings = settings
        self._inline = inline
        self._max_connections = max_connections
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._threads = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="request")
        self._replies: deque[tuple[Connection, Request, Reply]] = deque()
        self._ready: deque[Connection] = deque()
        self._connections: dict[Connection, None] = {}
        self._num_working = 0
        self._num_buffered = 0
        self._is_draining = False
        self._swept = clock()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._wake_in)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)

    def watch(self, descriptor: int) -> None:
        """Wake up also when this file descriptor becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, descriptor)

    def run_once(self, timeout_s: float) -> None:
        """Wait for events, at most ``timeout_s``, and process them."""
        for key, events in self._selector.select(0 if self._ready else timeout_s):
            if isinstance(key.data, Connection):
                self._process_events(key.data, events)
            elif isinstance(key.data, int):
                _drain_pipe(key.data)
            else:
                self._accept(key.data)
        self._send_replies()
        self._process_ready()
        self._sweep()

    def drain(self, *, within_s: float, receive_s: float, linger_s: float, tick: Callable[[], None]) -> None:
        """Accept nothing new and answer every request that had begun to arrive, calling ``tick`` meanwhile.

        Takes at most ``within_s``; waits ``receive_s`` for partial requests, and ``linger_s`` to reject late ones.
        """
        self._accept_last()
        start = self._clock()
        while self._connections and (elapsed := self._clock() - start) < within_s:
            tick()
            self.run_once(0.05)
            unfinished = [one for one in self._connections if one.state is not State.READING]
            arriving = [one for one in self._connections if one.reader.has_begun and not one.is_late]
            if not unfinished and (not arriving or elapsed > receive_s) and elapsed > linger_s:
                break

    def close(self) -> None:
        """Close all sockets; running requests are not waited for."""
        for connection in list(self._connections):
            self._close(connection)
        for listener in self._listeners:
            listener.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _accept_last(self) -> None:
        # A connection that the kernel accepted before the listeners close must be served.
        for listener in self._listeners:
            while self._accept(listener):
                pass
            self._selector.unregister(listener)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            if connection.state is State.READING:
                self._receive(connection)
        self._is_draining = True
        for connection in self._connections:
            connection.is_late = connection.state is State.READING and not connection.reader.has_begun

    # Sockets

    def _accept(self, listener: socket.socket) -> bool:
        try:
            sock, _ = listener.accept()
        except OSError:
            # None is left, the client has disconnected, or descriptors ran out; retried at the next iteration.
            return False
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, RequestReader(max_body=self._settings.max_body), self._clock())
        self._connections[connection] = None
        self._listen_to(connection, selectors.EVENT_READ)
        if len(self._connections) > self._max_connections:
            self._evict()
        return True

    def _evict(self) -> None:
        # A flood of silent clients must not lock out the next one, or a ping: the longest idle one is closed.
        idle = [one for one in self._connections if one.state in (State.READING, State.LINGERING)]
        if idle:
            self._close(min(idle, key=lambda one: one.since))

    def _listen_to(self, connection: Connection, events: int) -> None:
        if events == connection.events:
            return
        if not connection.events:
            self._selector.register(connection.sock, events, connection)
        elif not events:
            self._selector.unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, events, connection)
        connection.events = events

    def _process_events(self, connection: Connection, events: int) -> None:
        if connection.state is State.CLOSED:
            return
        if events & selectors.EVENT_WRITE:
            self._write(connection)
        elif events & selectors.EVENT_READ:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._mark_disconnected(connection)
        elif connection.state is State.READING:
            self._feed(connection, _take_all(connection.pipelined) + data)
        elif connection.state is State.WORKING:
            self._buffer_pipelined(connection, data)

    def _mark_disconnected(self, connection: Connection) -> None:
        connection.is_disconnected = True
        if connection.state is State.WORKING:
            self._listen_to(connection, 0)
        else:
            self._close(connection)

    def _buffer_pipelined(self, connection: Connection, data: bytes) -> None:
        connection.pipelined += data
        if len(connection.pipelined) > MAX_PIPELINED:
            self._listen_to(connection, 0)

    def _close(self, connection: Connection) -> None:
        self._listen_to(connection, 0)
        connection.state = State.CLOSED
        self._set_buffered(connection, 0)
        self._connections.pop(connection, None)
        connection.sock.close()

    # Requests

    def _feed(self, connection: Connection, data: bytes) -> None:
        if not connection.reader.has_begun:
            connection.since = self._clock()
        try:
            request = connection.reader.feed(data)
            self._set_buffered(connection, len(request.body) if request else connection.reader.num_buffered)
            self._check_room()
        except (RequestError, UnavailableError) as error:
            self._reject(connection, error)
            return
        if connection.reader.take_continue():
            self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        if request is not None:
            self._dispatch(connection, request)

    def _set_buffered(self, connection: Connection, num_bytes: int) -> None:
        self._num_buffered += num_bytes - connection.num_buffered
        connection.num_buffered = num_bytes

    def _check_room(self) -> None:
        if self._num_buffered > self._settings.max_buffered:
            raise BusyError("too many request bodies are in transit")

    def _dispatch(self, connection: Connection, request: Request) -> None:
        connection.state = State.WORKING
        extra: Environ = {IS_WANTED: connection.is_wanted}
        if self._is_draining and connection.is_late:
            extra[REQUEST_ERROR] = UnavailableError("this server is stopping")
        elif request.path not in self._inline and self._num_working >= self._settings.max_requests:
            extra[REQUEST_ERROR] = BusyError("the queue is full")
        if REQUEST_ERROR in extra or request.path in self._inline:
            self._answer(connection, request, self._call(request, extra))
        else:
            self._num_working += 1
            self._threads.submit(self._work, connection, request, extra)

    def _reject(self, connection: Connection, error: Exception) -> None:
        """Answer an incomplete request with an error and close: where the next request would begin is unknown."""
        connection.state = State.WORKING
        request = Request()
        self._answer(connection, request, self._call(request, {REQUEST_ERROR: error}))

    def _work(self, connection: Connection, request: Request, extra: Environ) -> None:
        self._replies.append((connection, request, self._call(request, extra)))
        # If the pipe is full, the loop wakes up anyway.
        with suppress(OSError):
            os.write(self._wake_out, b"\0")

    def _call(self, request: Request, extra: Environ) -> Reply:
        try:
            return call(self._app, environ_of(request, extra))
        except Exception:
            _log.exception("the application raised an exception")
            return failure()

    def _send_replies(self) -> None:
        while self._replies:
            connection, request, reply = self._replies.popleft()
            self._num_working -= 1
            self._answer(connection, request, reply)

    def _answer(self, connection: Connection, request: Request, reply: Reply) -> None:
        if connection.state is State.CLOSED:
            return
        connection.keep_alive = request.keep_alive and not self._is_draining
        connection.state = State.WRITING
        self._set_buffered(connection, 0)
        self._send(connection, reply.encode(request, keep_alive=connection.keep_alive))

    def _send(self, connection: Connection, data: bytes) -> None:
        connection.outbox = memoryview(bytes(connection.outbox) + data)
        connection.since = self._clock()
        self._write(connection)

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        connection.outbox = connection.outbox[sent:]
        if connection.outbox:
            self._listen_to(connection, selectors.EVENT_WRITE)
        elif connection.state is State.WRITING:
            self._finish(connection)
        else:
            self._listen_to(connection, selectors.EVENT_READ)

    def _finish(self, connection: Connection) -> None:
        connection.since = self._clock()
        if connection.is_disconnected:
            self._close(connection)
        elif connection.keep_alive:
            self._read_next(connection)
        else:
            self._linger(connection)

    def _read_next(self, connection: Connection) -> None:
        connection.state = State.READING
        connection.pipelined[:0] = connection.reader.next()
        self._listen_to(connection, selectors.EVENT_READ)
        if connection.pipelined:
            # One per iteration: a client that pipelines a thousand requests must not delay the others.
            self._ready.append(connection)

    def _linger(self, connection: Connection) -> None:
        # Closing with unread data would reset the connection before the client has read the response.
        connection.state = State.LINGERING
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._listen_to(connection, selectors.EVENT_READ)

    def _process_ready(self) -> None:
        for _ in range(len(self._ready)):
            connection = self._ready.popleft()
            if connection.state is State.READING and connection.pipelined:
                self._feed(connection, _take_all(connection.pipelined))

    # Time

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept < SWEEP_S:
            return
        self._swept = now
        for connection in list(self._connections):
            self._close_expired(connection, now - connection.since)

    def _close_expired(self, connection: Connection, age_s: float) -> None:
        if connection.state is State.READING and connection.reader.has_begun:
            if age_s > self._settings.receive_timeout_s:
                self._reject(connection, TooSlowError("the request did not arrive in time"))
        elif connection.state is State.READING:
            if age_s > KEEP_ALIVE_S:
                self._close(connection)
        elif connection.state is State.WRITING:
            if age_s > self._settings.receive_timeout_s:
                self._close(connection)
        elif connection.state is State.LINGERING and age_s > LINGER_S:
            self._close(connection)


def _take_all(buffer: bytearray) -> bytes:
    data = bytes(buffer)
    buffer.clear()
    return data


def _drain_pipe(descriptor: int) -> None:
    # Any rest wakes up the next iteration.
    with suppress(OSError):
        os.read(descriptor, 4096)

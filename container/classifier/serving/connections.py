"""Connections of Gunicorn's ASGI worker, with limits that keep slow or hostile clients from locking out the others.

Gunicorn parses requests and runs the application. This adds limits on the number of connections, the size of heads, the
rate of uploads and the memory for bodies, and errors in the format of all other responses.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn.asgi import protocol
from gunicorn.asgi.parser import LimitRequestHeaders, ParseError, UnsupportedTransferCoding

from classifier.serving.asgi import CONNECTION, NUM_RECEIVED, Adapter, Admission, header_fields
from classifier.serving.errors import BusyError, ProtocolError, TooSlowError
from classifier.serving.settings import MIB, ServerSettings
from classifier.serving.telemetry import Telemetry

# Any: the type stubs of Gunicorn are older than its ASGI worker.
_protocol: Any = protocol
_Protocol: Any = protocol.ASGIProtocol
# Gunicorn's own table lacks the phrases of 406, 507 and others.
for _status in HTTPStatus:
    _protocol._get_cached_status_line((1, 1), _status.value, _status.phrase)

# Bodies up to this size find room when large ones have taken theirs.
SMALL_BODY = MIB
SMALL_BODIES_SHARE = 0.125
# A body in tiny chunks costs a thousand times its size to reassemble.
MIN_CHUNK = 64
FREE_CHUNKS = 256
# A connection is not judged by its rate before.
GRACE_S = 5.0
# An upload of which nothing arrived for this long gives way before any that makes progress.
PAUSE_S = 1.0
# Half-life of the moving average of an upload's rate.
RATE_HALF_LIFE_S = 2.0
# Closing with unread data would reset the connection before the client has read the response.
LINGER_S = 2.0


class Connection(_Protocol):
    """One client's connection, which counts what it has received."""

    def __init__(self, worker: Any, connections: "Connections") -> None:
        super().__init__(worker)
        self._connections = connections
        self._max_buffer_size = 64 * 1024
        self._is_lingering = False
        self._is_half_closed = False
        self._num_chunks = 0
        self.since = connections.clock()  # of the last byte, or of the last response
        self.began: float | None = None  # of the request's first byte
        self.num_head_bytes = 0  # of a head that is not complete
        self.num_body_bytes = 0  # of a body that is held in memory
        self.rate = 0.0  # bytes of the body per second, a moving average
        self._num_measured = 0
        self.error: Exception | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self._current_request is None and not self.num_head_bytes

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to arrive and is not complete."""
        return not self.is_idle and (self._body_receiver is None or not self._body_receiver._complete)

    @property
    def is_receiving_head(self) -> bool:
        """Whether a head has begun to arrive and is not complete."""
        return self._current_request is None and self.num_head_bytes > 0

    @property
    def is_writing(self) -> bool:
        """Whether the client has not yet taken all of a response."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def is_busy(self, *, receiving: bool) -> bool:
        """Whether a drain waits for this connection; for requests that are still arriving only if ``receiving``."""
        if self._is_lingering:
            return True
        return not self.is_idle and (receiving or not self.is_receiving)

    @property
    def is_large(self) -> bool:
        """Whether the request's body is too large for the room that is kept for small ones."""
        announced = self._current_request.content_length if self._current_request else 0
        return max(announced, self.num_body_bytes) > SMALL_BODY

    def is_wanted(self) -> bool:
        """Whether the client is still connected; one that has only closed its sending side is."""
        return not self._conn_lost_handled

    def release(self) -> None:
        """Stop counting the request's bytes as buffered."""
        self._connections.num_buffered -= self.num_head_bytes + self.num_body_bytes
        self.num_head_bytes = self.num_body_bytes = 0

    def end_upload(self, error: Exception) -> None:
        """Stop receiving the request's body; the request is answered with the error."""
        self.error = error
        if self._body_receiver is None:
            self._refuse(error)
        else:
            # The application's next receive() returns, as for a client that has disconnected.
            self._body_receiver.signal_disconnect()

    def update_rate(self, elapsed_s: float) -> None:
        """Average the rate of the last ``elapsed_s`` into the moving average."""
        if elapsed_s > 0:
            decay = 0.5 ** (elapsed_s / RATE_HALF_LIFE_S)
            latest = (self.num_body_bytes - self._num_measured) / elapsed_s
            self.rate = decay * self.rate + (1 - decay) * latest
            self._num_measured = self.num_body_bytes

    def speed(self, now: float) -> float:
        """Bytes of the body per second: of late, or on average if the request is young; 0 if it has paused."""
        if now - self.since > PAUSE_S:
            return 0.0
        age_s = now - (self.began or now)
        return self.rate if age_s > GRACE_S else self.num_body_bytes / max(age_s, 1e-3)

    def close(self) -> None:
        """Close the connection after what has been written is sent."""
        self._close_transport()
        # Wakes up Gunicorn's loop of this connection, which waits for the next request.
        self._request_ready.set()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closed = True
        self.transport.abort()
        self._request_ready.set()

    # Events of the transport

    def connection_made(self, transport: Any) -> None:
        """Register the connection."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self.release()
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._is_lingering:
            return
        self.since = self._connections.clock()
        self.began = self.began or self.since
        room = self._connections.settings.max_header - self.num_head_bytes
        if self._current_request is None and len(data) > room:
            # No more of a head than is allowed is parsed, since that takes a time that grows with its square.
            self._parse(data[:room])
            data = data[room:]
            if self._current_request is None:
                self._refuse(self._head_too_large())
        if not self._closed:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._current_request is None:
            self.num_head_bytes += len(data)
            self._connections.num_buffered += len(data)
        try:
            super().data_received(data)
        except ValueError as error:
            # A length with more digits than Python converts to an integer.
            self._refuse(ProtocolError(f"malformed HTTP: {str(error)[:200]}"))

    def eof_received(self) -> bool:
        """Keep the connection of a client that has closed only its sending side, and waits for the response."""
        self._is_half_closed = True
        return not self._is_lingering and not self.is_idle and not self.is_receiving

    # Events of the parser

    def _on_headers_complete(self) -> bool:
        parser = self._callback_parser
        size = sum(len(name) + len(value) + 4 for name, value in parser.headers)
        if size > self._connections.settings.max_header:
            raise LimitRequestHeaders(str(self._head_too_large()))
        names = [name for name, _ in parser.headers]
        if parser.http_version >= (1, 1) and b"host" not in names:
            raise ParseError("a request of HTTP/1.1 needs a Host header")
        codings = b",".join(value for name, value in parser.headers if name == b"transfer-encoding")
        if codings.strip().lower() not in (b"", b"chunked"):
            raise UnsupportedTransferCoding(f"the transfer coding {codings.decode('latin-1')[:100]!r} is not supported")
        self.release()
        self._num_chunks = self._num_measured = 0
        self.began = self.began or self._connections.clock()
        self.rate, self.error = 0.0, None
        return super()._on_headers_complete()

    def _on_body(self, chunk: bytes) -> None:
        super()._on_body(chunk)
        self._num_chunks += 1
        self.num_body_bytes += len(chunk)
        if self._current_request.chunked and self._num_chunks > FREE_CHUNKS + self.num_body_bytes // MIN_CHUNK:
            raise ParseError(f"the body is sent in chunks of less than {MIN_CHUNK} bytes")
        self._connections.add_buffered(self, len(chunk))

    # Responses

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        return {**super()._build_http_scope(request, sockname, peername), CONNECTION: self}

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        return False

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        self.release()
        self.since, self.began = self._connections.clock(), None
        return self._is_half_closed or super()._will_close(request, response_requires_close)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Send Gunicorn's own errors in the format of all others."""
        del extra_headers
        if self._closed:
            return
        if status == 500:
            message = "the server failed on this request"
        self._write_refusal(ProtocolError(message[:200] or "malformed HTTP", status))

    def _refuse(self, error: Exception) -> None:
        if not self._closed:
            self._write_refusal(error)
            self._close_transport()

    def _write_refusal(self, error: Exception) -> None:
        status, headers, body = self._connections.adapter.refuse(self._environ(), error)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {text}" for name, text in headers)]
        self._safe_write("\r\n".join([*lines, "Connection: close", "\r\n"]).encode("latin-1") + body)

    def _environ(self) -> dict[str, Any]:
        """What is known of a request that could not be parsed, or did not arrive."""
        parser = self._callback_parser
        path, _, query = (parser.path or b"").decode("latin-1").partition("?")
        return {
            "REQUEST_METHOD": (parser.method or b"-").decode("latin-1"),
            "PATH_INFO": path or "-",
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "0",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            **header_fields(parser.headers),
            NUM_RECEIVED: self.num_body_bytes,
        }

    def _head_too_large(self) -> ProtocolError:
        limit = self._connections.settings.max_header
        return ProtocolError(f"headers of more than {limit:,} bytes, which is the limit", 431)

    def _close_transport(self) -> None:
        """Close for writing at once; for reading, too, unless the client may still be sending."""
        if self._closed or self.transport is None:
            return
        self._closed = True
        if not self.is_receiving:
            # Gunicorn would call write_eof() first, which fails if the client is gone, and leave the socket open.
            self.transport.close()
            return
        self._is_lingering = True
        if self._body_receiver is not None:
            self._body_receiver.signal_disconnect()
        self._resume_reading()
        with suppress(OSError):  # the client has disconnected
            self.transport.write_eof()
        self.worker.loop.call_later(LINGER_S, self.transport.close)


class Connections:
    """All connections of a worker, and the limits that they share.

    Args:
        settings: the limits.
        adapter: writes the responses to refused requests.
        admission: whether the server is stopping.
        telemetry: records evictions and timeouts.
        max_connections: above it, connections are closed.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: ServerSettings,
        adapter: Adapter,
        admission: Admission,
        telemetry: Telemetry,
        max_connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.adapter = adapter
        self.admission = admission
        self.clock = clock
        self.num_buffered = 0  # bytes of all bodies and incomplete heads in memory
        self.telemetry = telemetry
        self._max_connections = max_connections
        self._connections: dict[Connection, None] = {}
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def add(self, connection: Connection) -> None:
        """Register a connection; above the limit, one that has sent nothing for longest is closed."""
        self._connections[connection] = None
        if len(self._connections) > self._max_connections:
            self._evict(newest=connection)

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._connections.pop(connection, None)

    def add_buffered(self, connection: Connection, num_bytes: int) -> None:
        """Count received bytes of a body; if room is short, the slowest large uploads are ended."""
        self.num_buffered += num_bytes
        if self.num_buffered > self._large_limit:
            self._make_room(connection)

    def sweep(self) -> None:
        """End whatever has taken too long; to be called about twice a second."""
        now = self.clock()
        elapsed, self._swept = now - self._swept, now
        for connection in self:
            connection.update_rate(elapsed)
            self._end_if_late(connection, now)

    def _end_if_late(self, connection: Connection, now: float) -> None:
        settings, silent_s = self.settings, now - connection.since
        age_s = now - (connection.began or now)
        if connection.is_idle:
            if silent_s > max(settings.keep_alive_s, GRACE_S):
                connection.close()
        elif connection.is_receiving_head:
            if age_s > settings.header_timeout_s:
                self._end_slow(connection, f"the headers did not arrive within {settings.header_timeout_s:g} s")
        elif connection.is_receiving:
            if silent_s > settings.receive_timeout_s:
                self._end_slow(connection, f"nothing of the body arrived for {settings.receive_timeout_s:g} s")
            elif age_s > GRACE_S and connection.rate < settings.min_upload_kb_s * 1024:
                self._end_slow(connection, f"the body arrives at less than {settings.min_upload_kb_s:g} KiB/s")
        elif connection.is_writing and silent_s > settings.receive_timeout_s:
            connection.abort()

    def _end_slow(self, connection: Connection, message: str) -> None:
        if connection.error is None:
            self.telemetry.record_receive_timeout()
            connection.end_upload(TooSlowError(message))

    def _evict(self, newest: Connection) -> None:
        # Never an upload: those that make no progress are ended by their rate.
        others = [one for one in self._connections if one is not newest]
        idle = [one for one in others if one.is_idle] or [one for one in others if one.is_receiving_head]
        closed = min(idle, key=lambda one: one.since, default=newest)
        closed.abort()
        # At once: the transport reports the end later, and until then the same one would be chosen again.
        self.remove(closed)
        self.telemetry.record_eviction()

    @property
    def _large_limit(self) -> int:
        limit = self.settings.max_buffered
        return max(round(limit * (1 - SMALL_BODIES_SHARE)), self.settings.max_body)

    def _make_room(self, newest: Connection) -> None:
        held = [one for one in self._connections if one.num_body_bytes and one.error is None]
        large = [one for one in held if one.is_large]
        excess = sum(one.num_body_bytes for one in held) - self.settings.max_buffered
        if newest.is_large:
            excess = max(excess, sum(one.num_body_bytes for one in large) - self._large_limit)
        now = self.clock()
        slowest_first = sorted((one for one in large if one.is_receiving), key=lambda one: one.speed(now))
        for connection in [*slowest_first, newest]:
            if excess <= 0:
                return
            if connection.error is None:
                excess -= connection.num_body_bytes
                connection.end_upload(BusyError("too many request bodies are in transit"))

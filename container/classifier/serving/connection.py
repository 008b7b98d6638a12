"""A connection of Gunicorn's ASGI worker, which counts what it has received and answers invalid requests as all others.

Gunicorn parses requests and runs the application; the limits that all connections share are in ``connections``.
"""

import fcntl
import struct
import termios
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gunicorn.asgi import protocol
from gunicorn.asgi.parser import LimitRequestHeaders, ParseError, UnsupportedTransferCoding

from classifier.serving.asgi import CONNECTION, NUM_RECEIVED, header_fields
from classifier.serving.errors import ProtocolError
from classifier.serving.settings import MIB

if TYPE_CHECKING:
    from classifier.serving.connections import Connections

# Any: the type stubs of Gunicorn are older than its ASGI worker.
_protocol: Any = protocol
_Protocol: Any = protocol.ASGIProtocol
# Gunicorn's own table lacks the phrases of 406, 507 and others.
for _status in HTTPStatus:
    _protocol._get_cached_status_line((1, 1), _status.value, _status.phrase)

# Bodies up to this size find room when large ones have taken theirs.
SMALL_BODY = MIB
# A body in tiny chunks costs a thousand times its size to reassemble.
MIN_CHUNK = 64
FREE_CHUNKS = 256
# A request that begins thus is parsed at once. Others may have to wait for their turn: Gunicorn's parser looks at each
# byte of a head in Python, 0.1 ms a KiB, and what follows a head takes longer still.
PING = b"GET /ping"
QUICK_HEAD = 2048
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
        self._unparsed = b""  # the beginning of a request that waits for its turn
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
        return self._current_request is None and not self.num_head_bytes and not self._unparsed

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to arrive and is not complete."""
        return not self.is_idle and (self._body_receiver is None or not self._body_receiver._complete)

    @property
    def is_receiving_head(self) -> bool:
        """Whether a head has begun to arrive and is not complete."""
        return self._current_request is None and not self.is_idle

    @property
    def is_waiting(self) -> bool:
        """Whether received bytes wait for their turn, which is not the client's fault."""
        return bool(self._unparsed)

    @property
    def has_unread(self) -> bool:
        """Whether the kernel has received bytes that the event loop has not read yet."""
        try:
            size = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        except (OSError, ValueError):  # closed meanwhile
            return False
        return struct.unpack("i", size)[0] > 0

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
        self._connections.mark_active(self)
        is_ping = data.startswith(PING) and len(data) <= QUICK_HEAD
        if self._current_request is not None or is_ping or self._connections.has_time():
            self._receive(data)
        else:
            self._unparsed = data
            self._pause_reading()
            self._connections.defer(self)

    def receive_deferred(self) -> None:
        """Parse what has waited for its turn."""
        data, self._unparsed = self._unparsed, b""
        self._resume_reading()
        if not self._closed:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        room = self._connections.settings.max_header - self.num_head_bytes
        if self._current_request is None and len(data) > room:
            # No more of a head than is allowed is parsed.
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

"""HTTP/1.1 without I/O: incremental parsing of requests, WSGI calls, and responses as bytes.

Gunicorn's incremental parser validates the syntax; this adds the limits of a server that buffers whole bodies.
"""

import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn.asgi.parser import ParseError, PythonProtocol

from classifier.serving.errors import RequestError, TooLargeError

# A body in tiny chunks costs a thousand times its size to reassemble.
MIN_CHUNK = 64
FREE_CHUNKS = 256

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One complete request."""

    method: str = "GET"
    target: str = "/"
    version: str = "HTTP/1.1"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    keep_alive: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A WSGI application's response."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def encode(self, request: Request, *, keep_alive: bool) -> bytes:
        """The response as bytes, with its length and without a body for HEAD."""
        headers = [
            *(one for one in self.headers if one[0].lower() not in ("content-length", "connection")),
            ("Content-Length", str(len(self.body))),
            ("Connection", "keep-alive" if keep_alive else "close"),
        ]
        head = f"HTTP/1.1 {self.status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        return head.encode("latin-1") + (b"" if request.method == "HEAD" else self.body)


class RequestReader:
    """Incremental reader of the requests of one connection."""

    def __init__(self, *, max_body: int) -> None:
        self._max_body = max_body
        self._body = bytearray()
        self._num_chunks = 0
        self._waits_for_continue = False
        # Any: the type stubs of Gunicorn are older than the parser.
        self._parser: Any = PythonProtocol(on_headers_complete=self._check_headers, on_body=self._add)
        self.has_begun = False

    @property
    def num_buffered(self) -> int:
        """Bytes of the body received so far."""
        return len(self._body)

    def feed(self, data: bytes) -> Request | None:
        """Add received bytes and return the request once it is complete.

        Raises:
            RequestError: the bytes are not valid HTTP.
            TooLargeError: the body exceeds the limit, or its announced length does.
        """
        self.has_begun = self.has_begun or bool(data)
        try:
            self._parser.feed(data)
        # ValueError: a length with more digits than Python converts to an integer.
        except (ParseError, ValueError) as error:
            raise RequestError(f"malformed HTTP: {str(error)[:200]}") from None
        return self._request() if self._parser.is_complete else None

    def take_continue(self) -> bool:
        """Whether to send a ``100 Continue`` now; True at most once per request."""
        waits, self._waits_for_continue = self._waits_for_continue, False
        return waits and not self._parser.is_complete

    def next(self) -> bytes:
        """Reset for the next request and return the bytes received after the last one, to be fed again."""
        rest = self._parser.remaining()
        self._parser.reset()
        self._num_chunks = 0
        self.has_begun = False
        return rest

    def _check_headers(self) -> bool:
        if (self._parser.content_length or 0) > self._max_body:
            raise TooLargeError(
                f"a body of {self._parser.content_length:,} bytes; at most {self._max_body:,} are allowed"
            )
        self._waits_for_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self._parser.headers
        )
        return False

    def _add(self, chunk: bytes) -> None:
        self._body += chunk
        self._num_chunks += 1
        if len(self._body) > self._max_body:
            raise TooLargeError(f"a body of more than {self._max_body:,} bytes, which is the limit")
        if self._parser.is_chunked and self._num_chunks > FREE_CHUNKS + len(self._body) // MIN_CHUNK:
            raise RequestError(f"the body is sent in chunks of less than {MIN_CHUNK} bytes")

    def _request(self) -> Request:
        parser = self._parser
        body, self._body = bytes(self._body), bytearray()
        return Request(
            method=parser.method.decode("latin-1"),
            target=parser.path.decode("latin-1"),
            version="HTTP/{}.{}".format(*parser.http_version),
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in parser.headers),
            body=body,
            keep_alive=parser.should_keep_alive,
        )


def environ_of(request: Request, extra: Environ) -> Environ:
    """Build a request's WSGI environment (PEP 3333), including ``extra``."""
    path, _, query = request.target.partition("?")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "0",
        "SERVER_PROTOCOL": request.version,
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = name.upper().replace("-", "_")
        # Otherwise "content_type", with an underscore, would be mistaken for the header.
        if "_" not in name and key != "CONTENT_LENGTH":
            key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ | extra


@dataclass
class _Started:
    status: str = "500 Internal Server Error"
    headers: list[tuple[str, str]] = field(default_factory=list)


def call(app: WsgiApp, environ: Environ) -> Reply:
    """Call a WSGI application and return its complete response."""
    started = _Started()

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
        started.status, started.headers = status, headers

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return Reply(status=started.status, headers=started.headers, body=body)


def failure() -> Reply:
    """The response for an application that raised: 500, without any detail."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    body = b'{"error":{"type":"InternalError","message":"the server failed on this request"}}'
    return Reply(status=f"{status.value} {status.phrase}", headers=[("Content-Type", "application/json")], body=body)

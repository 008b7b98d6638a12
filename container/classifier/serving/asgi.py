"""The ASGI application that Gunicorn's worker calls: it collects request bodies and runs the WSGI application in threads.

Requests that never wait for the model, and all refusals, are answered on the event loop at once, whatever the load.
"""

import asyncio
import io
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from classifier.serving.errors import BusyError, RequestError, TooLargeError, UnavailableError
from classifier.serving.settings import ServerSettings

# Refusals further apart than this are not one saturation.
SATURATION_GAP_S = 1.0

# Keys of the WSGI environment, for the application.
REQUEST_ERROR = "classifier.error"  # an exception to answer this request with
IS_WANTED = "classifier.is_wanted"  # a function that returns whether the client is still connected
# Key of the ASGI scope: the connection that the request arrived on.
CONNECTION = "classifier.connection"

Environ = dict[str, Any]
Scope = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Reply = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class RequestConnection(Protocol):
    """What a request needs of its connection."""

    error: Exception | None  # the reason if the server ended the upload

    def is_wanted(self) -> bool:
        """Whether the client is still connected."""
        ...

    def release(self) -> None:
        """Stop counting the request's body as buffered."""
        ...


class Adapter:
    """Runs a WSGI application under ASGI, with ``settings.max_requests`` threads.

    Args:
        app: the WSGI application; gets each body complete, with its length.
        inline: paths that the application answers without waiting, on the event loop.
    """

    def __init__(self, app: WsgiApp, settings: ServerSettings, *, inline: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._settings = settings
        self._inline = inline
        self._threads = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="request")
        self._first_refusal = self._last_refusal = -math.inf
        self.num_in_flight = 0
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        connection: RequestConnection = scope[CONNECTION]
        try:
            reply = await self._reply(scope, receive, connection)
        finally:
            connection.release()
        if reply is not None:
            status, headers, body = reply
            encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await send({"type": "http.response.start", "status": status, "headers": encoded})
            await send({"type": "http.response.body", "body": body})

    def saturated_s(self) -> float:
        """Seconds since requests began to be refused for lack of capacity; 0 if none was lately."""
        now = time.monotonic()
        return now - self._first_refusal if now - self._last_refusal < SATURATION_GAP_S else 0.0

    def refuse(self, environ: Environ, error: Exception) -> Reply:
        """Return the application's response to a request that is refused."""
        if isinstance(error, BusyError):
            now = time.monotonic()
            if now - self._last_refusal >= SATURATION_GAP_S:
                self._first_refusal = now
            self._last_refusal = now
        return self._call({**environ, REQUEST_ERROR: error})

    async def _reply(self, scope: Scope, receive: Receive, connection: RequestConnection) -> Reply | None:
        environ = environ_of(scope)
        if environ["PATH_INFO"] in self._inline:
            return self._call(environ)
        try:
            body = await self._receive_body(int(environ["CONTENT_LENGTH"]), receive)
            if connection.error is not None:
                raise connection.error
            if body is None:
                return None
            if self.num_in_flight >= self._settings.max_requests:
                raise BusyError("the queue is full")
        except (RequestError, UnavailableError) as error:
            return self.refuse(environ, error)
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), IS_WANTED: connection.is_wanted}
        return await self._work(environ)

    async def _receive_body(self, announced: int, receive: Receive) -> bytes | None:
        """The request's body, or None if the client has disconnected or the connection ended the upload."""
        if announced > self._settings.max_body:
            raise TooLargeError(f"a body of {announced:,} bytes; at most {self._settings.max_body:,} are allowed")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            if not body and not message["more_body"]:
                return message["body"]
            body += message["body"]
            if len(body) > self._settings.max_body:
                raise TooLargeError(f"a body of more than {self._settings.max_body:,} bytes, which is the limit")
            if not message["more_body"]:
                return bytes(body)

    async def _work(self, environ: Environ) -> Reply:
        self.num_in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, environ)
        finally:
            self.num_in_flight -= 1

    def _call(self, environ: Environ) -> Reply:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            started.append((status, headers))

        chunks = self._app(environ, start_response)
        try:
            body = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        rest = [one for one in headers if one[0].lower() != "content-length"]
        return int(status[:3]), [*rest, ("Content-Length", str(len(body)))], body


def environ_of(scope: Scope) -> Environ:
    """Build a request's WSGI environment (PEP 3333), without its body."""
    path: str = scope["path"]
    if "://" in path and not path.startswith("/"):
        # The absolute form of a target (RFC 9112), which a server must accept.
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "0",
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ.setdefault("CONTENT_LENGTH", "0")
    return environ

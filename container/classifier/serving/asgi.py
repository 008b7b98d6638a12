"""The ASGI application that Gunicorn's worker calls: collects request bodies and runs the WSGI application in threads.

Requests that never wait for the model, and refusals, are answered on the event loop, even while all threads are busy.
"""

import asyncio
import io
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from classifier.serving.errors import BusyError, RequestError, TooLargeError, UnavailableError
from classifier.serving.settings import ServerSettings

# Keys of the WSGI environment, for the application.
REQUEST_ERROR = "classifier.error"  # an exception to answer this request with
IS_WANTED = "classifier.is_wanted"  # a function that returns whether the client is still connected
NUM_RECEIVED = "classifier.num_received"  # the bytes of a refused request's body that arrived, for the log
# Key of the ASGI scope: the request's connection, with `error`, the reason if its upload was ended, and `is_wanted`.
CONNECTION = "classifier.connection"
# Refusals further apart than this are not one saturation.
SATURATION_GAP_S = 1.0

Environ = dict[str, Any]
Scope = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Reply = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class Admission:
    """Whether the server takes requests: how many are in progress, and for how long others have been refused."""

    def __init__(self) -> None:
        self.num_in_flight = 0
        self.is_draining = False
        self._first_refusal = self._last_refusal = -math.inf

    def record_refusal(self) -> None:
        """Record that a request was refused for lack of capacity."""
        now = time.monotonic()
        if now - self._last_refusal >= SATURATION_GAP_S:
            self._first_refusal = now
        self._last_refusal = now

    def saturated_s(self) -> float:
        """Seconds since requests began to be refused; 0 if none was of late."""
        now = time.monotonic()
        return now - self._first_refusal if now - self._last_refusal < SATURATION_GAP_S else 0.0


class Adapter:
    """Runs a WSGI application under ASGI, with ``settings.max_requests`` threads.

    Args:
        app: the WSGI application; gets each body complete, with its length.
        settings: limits.
        admission: counts the requests in progress, and those refused.
        inline: paths that the application answers without waiting, on the event loop.
    """

    def __init__(
        self, app: WsgiApp, settings: ServerSettings, admission: Admission, *, inline: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._settings = settings
        self._admission = admission
        self._inline = inline
        self._refusing = asyncio.Lock()
        self._threads = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reply = await self._reply(scope, receive)
        if reply is not None:
            status, headers, body = reply
            encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await send({"type": "http.response.start", "status": status, "headers": encoded})
            await send({"type": "http.response.body", "body": body})

    def refuse(self, environ: Environ, error: Exception) -> Reply:
        """Return the application's response to a request that is refused."""
        if isinstance(error, BusyError):
            self._admission.record_refusal()
        return self._call({**environ, REQUEST_ERROR: error})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply | None:
        environ, connection = environ_of(scope), scope[CONNECTION]
        if environ["PATH_INFO"] in self._inline:
            return self._call(environ)
        try:
            body = await self._receive_body(int(environ.get("CONTENT_LENGTH", 0)), receive)
            if connection.error is not None:
                raise connection.error
            if body is None:
                return None
            if self._admission.num_in_flight >= self._settings.max_requests:
                raise BusyError("the queue is full")
        except (RequestError, UnavailableError) as error:
            # One in each iteration of the event loop, so that a ping does not wait for hundreds of them.
            async with self._refusing:
                await asyncio.sleep(0)
                return self.refuse({**environ, NUM_RECEIVED: connection.num_body_bytes}, error)
        # The body is no longer chunked; an environment that says so would have to announce the end of its input.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), IS_WANTED: connection.is_wanted}
        self._admission.num_in_flight += 1
        answer = asyncio.get_running_loop().run_in_executor(self._threads, self._call, environ)
        answer.add_done_callback(self._end_request)
        # Where the client disconnects, Gunicorn cancels this; the thread works on, and counts until it has ended.
        return await asyncio.shield(answer)

    def _end_request(self, _answer: asyncio.Future[Reply]) -> None:
        self._admission.num_in_flight -= 1

    async def _receive_body(self, announced: int, receive: Receive) -> bytes | None:
        """The request's body, or None if the client has disconnected or the upload was ended."""
        if announced > self._settings.max_body:
            raise TooLargeError(f"a body of {announced:,} bytes; at most {self._settings.max_body:,} are allowed")
        body = bytearray()
        while (message := await receive())["type"] != "http.disconnect":
            body += message["body"]
            if len(body) > self._settings.max_body:
                raise TooLargeError(f"a body of more than {self._settings.max_body:,} bytes, which is the limit")
            if not message["more_body"]:
                return bytes(body)
        return None

    def _call(self, environ: Environ) -> Reply:
        started: list[tuple[str, list[tuple[str, str]]]] = []
        chunks = self._app(environ, lambda status, headers, _exc_info=None: started.append((status, headers)))
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
    if not path.startswith("/") and "://" in path:
        # The absolute form of a target, which every server must accept (RFC 9112).
        path = "/" + path.partition("://")[2].partition("/")[2]
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
        "wsgi.input_terminated": True,  # so Werkzeug reads it whole, without copying it in pieces
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return environ | header_fields(scope["headers"])


def header_fields(headers: Iterable[tuple[bytes, bytes]]) -> Environ:
    """The part of a WSGI environment that holds a request's headers."""
    fields: Environ = {}
    for name, value in headers:
        key, text = name.decode("latin-1").upper().replace("-", "_"), value.decode("latin-1")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            fields[key] = text
        else:
            key = f"HTTP_{key}"
            fields[key] = f"{fields[key]},{text}" if key in fields else text
    return fields

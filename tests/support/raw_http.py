"""HTTP requests as bytes, for what an HTTP library would not send, and responses read from a socket."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from support.servers import Reply

READ_BYTES = 65536


def head(
    content_type: str | None = "image/jpeg",
    *,
    method: str = "POST",
    target: str = "/invocations",
    version: str = "1.1",
    **headers: str | None,
) -> bytes:
    """The request line and the header fields; an underscore in a name becomes a hyphen, None leaves a field out."""
    fields = {"Host": "localhost", "Content-Type": content_type}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {target} HTTP/{version}\r\n{lines}\r\n".encode("latin-1")


def request(
    body: bytes, content_type: str | None = "image/jpeg", *, length: int | str | None = None, **options: str | None
) -> bytes:
    """A request with a Content-Length, by default the true one; ``options`` are those of ``head``."""
    return head(content_type, **{"Content_Length": str(len(body) if length is None else length), **options}) + body


def chunked_request(
    body: bytes, content_type: str | None = "image/jpeg", *, chunk: int = 4096, **options: str | None
) -> bytes:
    """The same request in chunks of ``chunk`` bytes, without a Content-Length."""
    return head(content_type, **{"Transfer_Encoding": "chunked", **options}) + b"".join(_chunks(body, chunk))


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        part = body[start : start + size]
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def send(sock: socket.socket, data: bytes) -> bool:
    """Send all; return False if the server closed before, in which case its response may still be readable."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def read_reply(sock: socket.socket) -> Reply:
    """Read one response; see ``read_replies``."""
    return read_replies(sock, 1)[0]


def read_replies(sock: socket.socket, count: int) -> list[Reply]:
    """Read the responses to ``count`` pipelined requests, past any ``100 Continue``.

    Raises:
        ConnectionError: the server closed or reset the connection before the last one was complete.
        TimeoutError: the socket's timeout has passed.
    """
    with sock.makefile("rb") as stream:
        return [_read_reply(stream) for _ in range(count)]


def _read_reply(stream: BinaryIO) -> Reply:
    status, headers = 100, dict[str, str]()
    while status == 100:
        line = stream.readline()
        if not line:
            raise ConnectionError("closed without a response")
        status = int(line.split()[1])
        headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    body = stream.read(int(headers["content-length"]))
    if len(body) != int(headers["content-length"]):
        raise ConnectionError(f"closed after {len(body)} of {headers['content-length']} bytes")
    return Reply(status, headers, body)


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes or resets the connection."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := sock.recv(READ_BYTES):
            received += data
    return bytes(received)


def is_open(sock: socket.socket) -> bool:
    """Whether the server has neither closed the connection nor sent anything that was not read yet."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(timeout)
    return False

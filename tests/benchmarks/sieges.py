"""Sieges of a server by many callers at once, each of a kind that once kept other callers from being answered."""

import collections
import concurrent.futures
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.attacks import MAX_BODY, json_bombs, tiff_bomb
from benchmarks.ping_comparison import Rival
from support.raw_http import head, read_reply, request, send
from support.servers import ServerProcess, drawn_photos

Statuses = collections.Counter[int | str]
PHOTO = drawn_photos(3)[2]
REQUEST = request(PHOTO)


@dataclass(frozen=True)
class Siege:
    """A siege and the statuses that its callers may get; "closed" stands for no response.

    ``rivals``: the bare servers to compare with, of which the first judges. Photos like any others are compared with a
    server that classifies them, all else with those that throw bodies away.
    """

    name: str
    run: Callable[[ServerProcess], Statuses]
    expected: frozenset[int | str]
    rivals: tuple[Rival, ...] = ("gunicorn reading", "aiohttp reading")


@contextmanager
def _sockets(server: ServerProcess, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def _status(sock: socket.socket) -> int | str:
    try:
        reply = read_reply(sock)
    except OSError:
        return "closed"
    is_complete = reply.status != 503 or "retry-after" in reply.headers
    return reply.status if is_complete else "503 without Retry-After"


def _at_once(server: ServerProcess, bodies: list[bytes], content_type: str) -> Statuses:
    """Send all bodies at once, and photos meanwhile, which must be answered, too."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as callers:
        answers = [callers.submit(server.invoke, body, content_type) for body in bodies]
        photos = [server.invoke(PHOTO).status for _ in range(5)]
        return Statuses([*(answer.result().status for answer in answers), *(f"photo {status}" for status in photos)])


def _json(server: ServerProcess) -> Statuses:
    return sum((_at_once(server, [bomb] * 3, "application/json") for bomb in json_bombs()), Statuses())


def _tiffs(server: ServerProcess) -> Statuses:
    return _at_once(server, [tiff_bomb()] * 8, "image/tiff")


def _large_photos(server: ServerProcess) -> Statuses:
    """TIFFs that are allowed, and take much of the memory that is."""
    return _at_once(server, [tiff_bomb("F", 4_800)] * 8, "image/tiff")


def _stalled_large(server: ServerProcess) -> Statuses:
    """Eleven uploads of the largest size that stop short of their last byte."""
    with _sockets(server, 11) as sockets:
        for sock in sockets:
            send(sock, request(bytes(MAX_BODY))[:-1])
        photos = [server.invoke(PHOTO).status for _ in range(20)]
        return Statuses([*map(_status, sockets), *(f"photo {status}" for status in photos)])


def _stalled_small(server: ServerProcess) -> Statuses:
    with _sockets(server, 1_000) as sockets:
        for sock in sockets:
            sock.sendall(REQUEST[:200])
        photos = [server.invoke(PHOTO).status for _ in range(20)]
        return Statuses([*map(_status, sockets), *(f"photo {status}" for status in photos)])


def _silent(server: ServerProcess) -> Statuses:
    """More silent connections than there is room for, and six uploads that make progress."""
    with _sockets(server, 6) as uploads:
        for sock in uploads:
            sock.sendall(REQUEST[:200])
        with _sockets(server, 2_100):
            for sock in uploads:
                sock.sendall(REQUEST[200:])
            return Statuses(map(_status, uploads))


def _heads(server: ServerProcess) -> Statuses:
    flood = head(**{f"X{number}": "y" * 8_000 for number in range(100)})[:-2]
    with _sockets(server, 400) as sockets:
        for sock in sockets:
            send(sock, flood)
        photos = [server.invoke(PHOTO).status for _ in range(20)]
        return Statuses([*map(_status, sockets), *(f"photo {status}" for status in photos)])


def _crowd(server: ServerProcess) -> Statuses:
    """Five hundred photos at once, where 64 may wait."""
    with _sockets(server, 500) as sockets:
        for sock in sockets:
            sock.sendall(REQUEST)
        return Statuses(map(_status, sockets))


PHOTOS = frozenset({"photo 200"})
SIEGES = (
    Siege("three JSON bombs of 25 MB at once, seven kinds", _json, PHOTOS | {400, 413, 422}),
    Siege("eight TIFFs of 196 MB once decoded", _tiffs, PHOTOS | {413, 422}),
    # They wait for room to decode; whoever waits for longer than SERVE_REQUEST_TIMEOUT_S gets 503.
    Siege("eight TIFFs of 92 MB once decoded", _large_photos, PHOTOS | {200}),
    # The bodies exceed SERVE_MAX_BUFFERED_MB in all, so some get 503.
    Siege("eleven stalled uploads of 25 MB", _stalled_large, PHOTOS | {408, 503}),
    Siege("1,000 stalled uploads of photos", _stalled_small, PHOTOS | {408}),
    Siege("2,100 silent connections", _silent, frozenset({200})),
    # Closed: the answer is lost where the client still sends after the server has stopped reading.
    # Gunicorn's own limits let them stop its pings for ten seconds, with which nothing can be compared.
    Siege("400 heads of 800 KB", _heads, PHOTOS | {431, "closed"}, ("aiohttp reading",)),
    # More than SERVE_MAX_REQUESTS, so most get 503.
    Siege("500 callers at once", _crowd, frozenset({200, 503}), ("gunicorn classifying",)),
)

"""The least that a server can do, for serve_fuzz.py to compare pings: it answers ``/ping``, and reads bodies.

``reading`` throws bodies away; ``classifying`` decodes and classifies them with this project's code in as many threads
as `serve` has, and refuses what is more. ``gunicorn`` is Gunicorn's own ASGI worker, ``aiohttp`` another server, with a
parser in C. The port and the folder of the model come from the platform's variables, as for `serve`.
"""

import argparse
import asyncio
import queue
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web
from gunicorn.app.base import BaseApplication

from classifier.contract.paths import Paths
from classifier.engine.opening import open_engine
from classifier.errors import UserError
from classifier.serving.server import BACKLOG
from classifier.serving.settings import ServerSettings
from classifier.vision.manifest import ModelManifest

# No caller waits longer for the answer to an upload that stalls.
BODY_S = 5.0
Answer = Callable[[bytes], Awaitable[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["gunicorn", "aiohttp"])
    parser.add_argument("work", choices=["reading", "classifying"])
    options = parser.parse_args()
    settings = ServerSettings.from_environment()
    make = classifying if options.work == "classifying" else reading
    {"gunicorn": serve_gunicorn, "aiohttp": serve_aiohttp}[options.server](lambda: make(settings), settings)


def program(server: str, work: str) -> list[str]:
    """The command that starts a bare server."""
    return [sys.executable, "-m", __spec__.name, server, work]


def reading(_settings: ServerSettings) -> Answer:
    """What answers 200 to any body."""

    async def answer(_body: bytes) -> int:
        return 200

    return answer


def classifying(settings: ServerSettings) -> Answer:
    """What answers 200 to photos, 422 to other bodies, and 503 while ``settings.max_requests`` are in progress."""
    folder = Paths.from_environment().model
    manifest = ModelManifest.read(folder)
    engine = open_engine(folder, manifest)
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(engine.num_slots):
        slots.put(number)
    threads = ThreadPoolExecutor(settings.max_requests)
    num_in_flight = 0

    def classify(body: bytes) -> int:
        try:
            pixels = manifest.preprocessing.pixels_of(body)
        except UserError:
            return 422
        slot = slots.get()
        try:
            engine.infer(slot, pixels[None])
        finally:
            slots.put(slot)
        return 200

    async def answer(body: bytes) -> int:
        nonlocal num_in_flight
        if num_in_flight >= settings.max_requests:
            return 503
        num_in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, classify, body)
        finally:
            num_in_flight -= 1

    return answer


def serve_gunicorn(make: Callable[[], Answer], settings: ServerSettings) -> None:
    """Serve with Gunicorn's ASGI worker, its options as `serve` sets them where they matter."""

    class Application(BaseApplication):
        def load_config(self) -> None:
            options: dict[str, Any] = {
                "bind": f"127.0.0.1:{settings.port}",
                "worker_class": "gunicorn.workers.gasgi.ASGIWorker",
                "backlog": BACKLOG,
                "asgi_loop": "asyncio",
                "asgi_lifespan": "off",
                "http_parser": "python",
                "loglevel": "critical",
                "graceful_timeout": 1,
                "control_socket_disable": True,
                "post_worker_init": _listen_long,
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return _asgi_app(make())

    Application().run()


def _listen_long(worker: Any) -> None:
    # asyncio would listen again with a backlog of 100, and a ping whose SYN is dropped waits for a second.
    worker.loop.create_server = partial(worker.loop.create_server, backlog=BACKLOG)


def _asgi_app(answer: Answer) -> Any:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        status = 200
        if scope["path"] != "/ping":
            status = await _within(_read(receive), answer)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    return app


async def _read(receive: Any) -> bytes:
    pieces: list[bytes] = []
    while (message := await receive())["type"] == "http.request":
        pieces.append(message["body"])
        if not message["more_body"]:
            break
    return b"".join(pieces)


def serve_aiohttp(make: Callable[[], Answer], settings: ServerSettings) -> None:
    """Serve with aiohttp."""
    answer = make()

    async def invocations(request: web.Request) -> web.Response:
        return web.Response(status=await _within(request.read(), answer))

    async def ping(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=2 * settings.max_body)
    app.add_routes([web.get("/ping", ping), web.post("/invocations", invocations)])
    web.run_app(app, host="127.0.0.1", port=settings.port, backlog=BACKLOG, access_log=None, print=None)


async def _within(body: Awaitable[bytes], answer: Answer) -> int:
    try:
        async with asyncio.timeout(BODY_S):
            received = await body
    except TimeoutError:
        return 408
    return await answer(received)


if __name__ == "__main__":
    main()

"""HTTP clients that are not ours, each sending requests one after another over one connection, in chunks or not."""

import asyncio
import base64
import io
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import requests

CHUNK = 4096
TIMEOUT_S = 60


@dataclass(frozen=True)
class Transfer:
    """A request: its body, its content type, and whether the body is sent in chunks."""

    body: bytes
    content_type: str
    chunked: bool = False

    def parts(self) -> Iterator[bytes]:
        """The body in parts, for a client that sends what an iterator yields."""
        for start in range(0, len(self.body), CHUNK):
            yield self.body[start : start + CHUNK]


@dataclass
class Exchange:
    """What came back: statuses and bodies in the order of the requests; and the number of connections opened."""

    replies: list[tuple[int, bytes]] = field(default_factory=list)
    num_connections: int = 0


Client = Callable[[str, Sequence[Transfer]], Exchange]


def with_requests(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """Python's requests; a generator is sent in chunks."""
    exchange = Exchange()
    with requests.Session() as session:
        session.trust_env = False
        for one in transfers:
            data = one.parts() if one.chunked else one.body
            reply = session.post(url, data=data, headers={"Content-Type": one.content_type}, timeout=TIMEOUT_S)
            exchange.replies.append((reply.status_code, reply.content))
        pool: Any = session.get_adapter(url).get_connection_with_tls_context(  # pyright: ignore[reportAttributeAccessIssue]
            requests.Request("POST", url).prepare(), verify=True
        )
        exchange.num_connections = pool.num_connections
    return exchange


def with_httpx(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """Python's httpx; a generator is sent in chunks."""
    exchange = Exchange()

    def trace(event: str, _info: object) -> None:
        exchange.num_connections += event == "connection.connect_tcp.complete"

    with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
        for one in transfers:
            reply = client.post(
                url,
                content=one.parts() if one.chunked else one.body,
                headers={"Content-Type": one.content_type},
                extensions={"trace": trace},
            )
            exchange.replies.append((reply.status_code, reply.content))
    return exchange


def with_aiohttp(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """Python's aiohttp; an asynchronous generator is sent in chunks."""
    return asyncio.run(_with_aiohttp(url, transfers))


async def _with_aiohttp(url: str, transfers: Sequence[Transfer]) -> Exchange:
    import aiohttp  # noqa: PLC0415 - takes a quarter of a second, in every worker

    exchange = Exchange()

    async def count(*_: object) -> None:
        exchange.num_connections += 1

    async def parts(one: Transfer) -> AsyncIterator[bytes]:
        for part in one.parts():
            yield part

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        for one in transfers:
            # aiohttp warns of large bodies that are not files.
            data = parts(one) if one.chunked else io.BytesIO(one.body)
            async with session.post(url, data=data, headers={"Content-Type": one.content_type}) as reply:
                exchange.replies.append((reply.status, await reply.read()))
    return exchange


def with_curl(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """One process of curl."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["curl"]
        for number, one in enumerate(transfers):
            (folder / f"{number}.body").write_bytes(one.body)
            command += [*(["--next"] if number else []), *_curl_options(folder, number, one), url]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
        counts = [line.split() for line in printed.splitlines()]
        replies = [(int(status), (folder / f"{n}.reply").read_bytes()) for n, (status, _) in enumerate(counts)]
    return Exchange(replies, sum(int(num) for _, num in counts))


def _curl_options(folder: Path, number: int, one: Transfer) -> list[str]:
    headers = [f"Content-Type: {one.content_type}", *(["Transfer-Encoding: chunked"] if one.chunked else [])]
    return [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        *(option for header in headers for option in ("--header", header)),
        "--data-binary",
        f"@{folder / f'{number}.body'}",
        "--output",
        str(folder / f"{number}.reply"),
        "--write-out",
        "%{http_code} %{num_connects}\n",
    ]


def with_fetch(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """Node's fetch; a ReadableStream is sent in chunks."""
    return _with_node("fetch", url, transfers)


def with_node_http(url: str, transfers: Sequence[Transfer]) -> Exchange:
    """Node's http.request; without a Content-Length, the body is sent in chunks."""
    return _with_node("request", url, transfers)


def _with_node(library: str, url: str, transfers: Sequence[Transfer]) -> Exchange:
    described = [
        {"body": base64.b64encode(one.body).decode(), "type": one.content_type, "chunked": one.chunked}
        for one in transfers
    ]
    done = subprocess.run(
        ["node", str(Path(__file__).with_suffix(".mjs"))],
        input=json.dumps({"url": url, "library": library, "transfers": described}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    replies = [(one["status"], base64.b64decode(one["body"])) for one in document["responses"]]
    return Exchange(replies, document["numConnections"])

"""Fuzz test: the server must reject hostile requests, survive them, and free their memory. Reproducible by seed.

  make fuzz-serve
  PYTHONPATH=tests .venv/bin/python -m benchmarks.serve_fuzz --count 1000 --seed 7

A real `serve` on a small model, on this machine only. Sends damaged photos, arrays and JSON, some with false sizes,
false headers, and from clients that are slow or disconnect. Fails on a 5xx response (other than 503 with Retry-After),
on a missing response, on a replaced worker process, on memory that is not freed, and if a valid photo is not answered
afterwards.
"""

import argparse
import base64
import collections
import concurrent.futures
import io
import itertools
import json
import random
import re
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.processes import Usage
from support.drawing import draw_photo, encode
from support.servers import ServerProcess, drawn_photos, export_artifact, running, write_artifact

NUM_CALLERS = 16
RECEIVE_TIMEOUT_S = 2
ANSWER_S = 30.0
# Memory that the allocator keeps for the next large photo, in one arena per thread.
MEMORY_TOLERANCE = 200 * 1024 * 1024

# whole: all is sent; a response is expected. slow: sent in small pieces; a response is expected. stalled: the rest is
# never sent; an error is expected. gone: the client disconnects in the middle, or without reading.
Delivery = Literal["whole", "slow", "stalled", "gone"]


@dataclass(frozen=True)
class Attack:
    """The bytes of one connection."""

    kind: str
    data: bytes
    delivery: Delivery = "whole"


@dataclass
class Fuzz:
    """Responses and problems of a run, and the worker's memory in bytes before and after."""

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    problems: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    seconds: float = 0.0


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        export_artifact(write_artifact(base / "model"))
        with running(base, base / "log", SERVE_RECEIVE_TIMEOUT_S=str(RECEIVE_TIMEOUT_S)) as server:
            result = fuzz(server, options.count, options.seed, log=lambda text: print(text, flush=True))
    print(f"{options.count:,} hostile requests in {result.seconds:.0f} s")
    print("answers: " + ", ".join(f"{status}: {num:,}" for status, num in sorted(result.statuses.items())))
    print(f"the worker's memory: {result.before / 1e6:.0f} MB before, {result.after / 1e6:.0f} MB after")
    sys.exit("\n".join(result.problems[:20]) or None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def fuzz(server: ServerProcess, count: int, seed: int = 0, *, log: Callable[[str], None] = lambda _text: None) -> Fuzz:
    """Send ``count`` attacks, many at a time, and check the server afterwards."""
    [worker] = server.workers()
    result = Fuzz(before=_warm(server, worker))
    start = time.monotonic()
    stream, part = attacks(count, seed), max(count // 10, 1)
    with concurrent.futures.ThreadPoolExecutor(NUM_CALLERS) as callers:
        # In parts, so that not all of them are in memory at once.
        while some := list(itertools.islice(stream, part)):
            for status, problem in callers.map(lambda attack: _send(server.port, attack), some):
                result.statuses[status] += 1
                result.problems += [problem] if problem else []
            log(f"{result.statuses.total():>7,} sent: {Usage.of(worker)}")
    result.seconds = time.monotonic() - start
    result.problems += _look_after(server, worker, result)
    return result


def _warm(server: ServerProcess, worker: int) -> int:
    """Send valid requests of every kind that allocates memory once; return the worker's memory in bytes."""
    floats = _npy(np.zeros((1, 3, 64, 64), np.float32))
    with concurrent.futures.ThreadPoolExecutor(NUM_CALLERS) as callers:
        list(callers.map(server.invoke, drawn_photos(8) * 8))
    server.invoke(floats, "application/x-npy")
    return Usage.of(worker).anonymous


def _look_after(server: ServerProcess, worker: int, result: Fuzz) -> list[str]:
    good = server.invoke(drawn_photos(1)[0])
    problems = [] if good.status == 200 else [f"a valid photo got {good.status}: {good.body[:200]!r}"]
    if server.ping() != 200:
        problems.append("/ping is not 200")
    if server.workers() != [worker]:
        return [*problems, "the worker died and was replaced"]
    result.after = Usage.of(worker).anonymous
    if result.after > result.before + MEMORY_TOLERANCE:
        problems.append(f"memory grew from {result.before / 1e6:.0f} to {result.after / 1e6:.0f} MB")
    return problems


# Callers


def _send(port: int, attack: Attack) -> tuple[str, str | None]:
    """Send an attack; return the status, or "none", and the problem with it, if any."""
    try:
        answer = _exchange(port, attack)
    except TimeoutError:
        return "none", f"{attack.kind}: no answer within {ANSWER_S:.0f} s"
    except ConnectionError:
        # The server may reject the request and close before all has been sent.
        answer = b""
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    if match is None:
        return "none", None if attack.delivery == "gone" else f"{attack.kind}: no answer"
    status = int(match[1])
    is_shed = status == 503 and b"\r\nRetry-After:" in answer
    return str(status), f"{attack.kind}: {status}: {answer[-300:]!r}" if status >= 500 and not is_shed else None


def _exchange(port: int, attack: Attack) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as sock:
        if attack.delivery == "slow":
            for start in range(0, len(attack.data), max(len(attack.data) // 8, 1)):
                sock.sendall(attack.data[start : start + max(len(attack.data) // 8, 1)])
                time.sleep(0.02)
        else:
            _send_all(sock, attack.data)
        return b"" if attack.delivery == "gone" else _receive(sock)


def _send_all(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        # Rejected before all was sent; the response may still be readable.
        return


def _receive(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    answer = b""
    try:
        while data := sock.recv(65536):
            answer += data
    except ConnectionResetError:
        return answer
    return answer


# Attacks


def attacks(count: int, seed: int = 0) -> Iterator[Attack]:
    """Yield ``count`` attacks, reproducible by seed."""
    rng = random.Random(seed)
    photos = _photos()
    makers: list[tuple[Callable[[random.Random, list[bytes]], Attack], int]] = [
        (_damaged_photo, 40),
        (_bomb, 8),
        (_array, 14),
        (_json, 18),
        (_lying_length, 6),
        (_lying_headers, 6),
        (_odd_headers, 8),
        (_slow, 2),
        (_gone, 6),
    ]
    for _ in range(count):
        [make] = rng.choices([one for one, _ in makers], [weight for _, weight in makers])
        yield make(rng, photos)


def _photos() -> list[bytes]:
    image = draw_photo(120, 90, seed=3)
    formats = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})]
    files = [encode(image, format, **options) for format, options in formats]
    return [*files, encode(image.convert("CMYK")), encode(image.convert("L"), "PNG"), encode(image, "TIFF")]


def request(body: bytes, content_type: str = "image/jpeg", *, length: int | str | None = None, **headers: str) -> bytes:
    """An HTTP request as bytes; ``headers`` override the correct ones."""
    fields = {"Host": "localhost", "Connection": "close", "Content-Type": content_type}
    fields |= {"Content-Length": str(len(body) if length is None else length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"POST /invocations HTTP/1.1\r\n" + head.encode("latin-1") + b"\r\n" + body


def _damaged_photo(rng: random.Random, photos: list[bytes]) -> Attack:
    damaged = _mutate(rng, rng.choice(photos), rng.choice(photos))
    content_type = rng.choice(["image/jpeg", "image/png", "image/*", "application/x-image", "application/octet-stream"])
    if rng.random() < 0.1:
        document = json.dumps({"image": base64.b64encode(damaged).decode()})
        return Attack("damaged photo in JSON", request(document.encode(), "application/json"))
    return Attack("damaged photo", request(damaged, content_type))


def _mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    match rng.randrange(7):
        case 0:
            for _ in range(rng.choice([1, 4, 64])):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 1:
            # Most of the fields that a decoder relies on are at the beginning.
            for _ in range(rng.choice([1, 2, 8])):
                changed[rng.randrange(min(len(changed), 64))] ^= 1 << rng.randrange(8)
        case 2:
            del changed[rng.randrange(len(changed)) :]
        case 3:
            start = rng.randrange(len(changed))
            del changed[start : start + rng.randrange(1, 200)]
        case 4:
            start = rng.randrange(len(changed))
            changed[start:start] = rng.randbytes(rng.randrange(1, 2000))
        case 5:
            changed[rng.randrange(len(changed)) :] = other[rng.randrange(len(other)) :]
        case _:
            start = rng.randrange(len(changed) - 4)
            changed[start : start + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"]
            )
    return bytes(changed)


def _bomb(rng: random.Random, photos: list[bytes]) -> Attack:
    jpeg, _, png, webp, gif, *_ = photos
    side = rng.choice([7_900, 30_000, 65_535])
    match rng.randrange(7):
        case 0:
            kind, body = "PNG with a huge declared size", _png(rng.choice([30_000, 2**31 - 1]), side, b"\0" * 64)
        case 1 if rng.random() < 0.1:
            # Just below the limit: 49 million pixels in a few kilobytes.
            kind, body = "PNG that is huge", _png(7_000, 7_000, b"\0" * 876 * 7_000, depth=1)
        case 2:
            text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 20_000_000))
            kind, body = "PNG with a compressed text bomb", png[:33] + text + png[33:]
        case 3:
            # In the frame header, marker, length and precision precede height and width.
            start = jpeg.index(b"\xff\xc0") + 5
            kind, body = "JPEG with a huge declared size", _replace(jpeg, start, struct.pack(">HH", side, side))
        case 4:
            kind, body = "GIF with a huge declared size", _replace(gif, 6, struct.pack("<HH", side, side))
        case 5:
            start = webp.index(b"\x9d\x01\x2a") + 3
            kind, body = "WebP with a huge declared size", _replace(webp, start, struct.pack("<HH", 16383, 16383))
        case _:
            kind, body = "PNG with many chunks", png[:33] + _chunk(b"tEXt", b"a\0b") * 20_000 + png[33:]
    return Attack(kind, request(body, "image/*"))


def _replace(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def _png(width: int, height: int, rows: bytes, *, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _array(rng: random.Random, photos: list[bytes]) -> Attack:
    shapes = [(1, 3, 64, 64), (3, 64, 64), (2, 64, 64, 3), (70, 3, 8, 8), (0, 3, 64, 64), (), (1, 1, 1, 3), (5,)]
    if rng.random() < 0.3:
        value = rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e9, 0.0])
        dtype = rng.choice(["<f4", ">f4", "<f8", "<f2", "u1", "<i4", "<c8", "?", "U3", "M8[s]"])
        with np.errstate(all="ignore"):
            body = _npy(
                np.full(rng.choice(shapes), 7 if dtype in ("U3", "u1", "<i4", "M8[s]") else value).astype(dtype)
            )
    elif rng.random() < 0.5:
        body = _mutate(rng, _npy(np.zeros(rng.choice(shapes[:3]), rng.choice([np.uint8, np.float32]))), photos[0])
    else:
        body = _npy_header(_header(rng), rng.choice([(1, 0), (2, 0), (3, 0), (9, 9)])) + rng.randbytes(300)
    return Attack("array", request(body, "application/x-npy"))


def _header(rng: random.Random) -> str:
    shape = rng.choice(
        ["(1,3,64,64)", f"({2**62},{2**62},3)", "(-1,3,64,64)", "(True,3,64,64)", "(1e9,)", "((1,),)", "()", "(9,)*9"]
    )
    descr = rng.choice(["'|O'", "'<f4'", "'|u1'", "'V99999999999'", "[('a','<f4')]", "'<f4,<f4'", "None", "'no'"])
    return rng.choice(
        [
            f"{{'descr': {descr}, 'fortran_order': {rng.choice(['True', 'False', '3'])}, 'shape': {shape}, }}",
            "(" * 5_000 + ")" * 5_000,
            "[" * 9_000,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 4_000 + "), }",
            "__import__('os')",
            "-" * 9_000 + "1",
            "\0",
        ]
    )


def _npy_header(text: str, version: tuple[int, int]) -> bytes:
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes(version) + length + text.encode("latin-1") + b"\n"


def _json(rng: random.Random, photos: list[bytes]) -> Attack:
    content_type = rng.choice(
        ["application/json", "application/json", "application/json; charset=utf-16", "application/jsonlines"]
    )
    if rng.random() < 0.5:
        return Attack("JSON of wrong types", request(json.dumps(_document(rng, photos, 0)).encode(), content_type))
    if rng.random() < 0.5:
        body = json.dumps({"instances": [{"image": base64.b64encode(photos[0]).decode()}] * rng.choice([1, 3])})
        return Attack("damaged JSON", request(_mutate(rng, body.encode(), photos[1]), content_type))
    depth = rng.choice([10, 1_000, 200_000])
    body = rng.choice(
        [
            b"[" * depth,
            b"[" * depth + b"]" * depth,
            b'{"image":' * depth + b"1" + b"}" * depth,
            b'{"instances": [' + b"{}," * depth + b"{}]}",
            b'{"image": "' + b"A" * depth * 10 + b'"}',
            b'{"image": "' + b"\\u0041" * depth + b'"}',
            b'{"image": ' + b"9" * 10_000 + b"}",
            b'{"image": NaN}',
            b'{"image": "\xff\xfe"}',
            b'{"image": "\\ud800"}',
            b'"' + b"\\" * depth,
            b'{"image": "data:;base64,' + b"=" * 50 + b'"}',
            b"\n" * depth,
            b'{"image": ""}\n' * depth,
            b"\xef\xbb\xbf{}",
            b"\0" * depth,
            b"",
        ]
    )
    return Attack("JSON", request(body, content_type))


def _document(rng: random.Random, photos: list[bytes], depth: int) -> Any:
    good = base64.b64encode(photos[0]).decode()
    leaves = [None, True, -1, 1e308, "", "é", "AAAA", "====", good, good[:-3], "data:", "data:image/png;base64," + good]
    if depth > 3 or rng.random() < 0.3:
        return rng.choice(leaves)
    names = ["image", "instances", "image", "b64", "", "__class__"]
    if rng.random() < 0.4:
        return [_document(rng, photos, depth + 1) for _ in range(rng.choice([0, 1, 3, 70]))][: 70 // (depth + 1)]
    return {rng.choice(names): _document(rng, photos, depth + 1) for _ in range(rng.randrange(4))}


def _lying_length(rng: random.Random, photos: list[bytes]) -> Attack:
    photo = photos[0]
    match rng.randrange(4):
        case 0 if rng.random() < 0.1:
            data = request(photo, length=len(photo) + rng.choice([1, 10_000]))
            return Attack("shorter than Content-Length", data, "stalled")
        case 1:
            return Attack("two Content-Lengths", request(photo, content_length="5"))
        case 2:
            length = rng.choice(["-1", "1e3", "0x10", "9" * 30, "9" * 5_000, "", "5, 5", "+5", "1 2", "26214401"])
            return Attack("invalid Content-Length", request(photo, length=length))
        case _:
            return Attack("longer than Content-Length", request(photo, length=rng.randrange(len(photo))))


def _lying_headers(rng: random.Random, photos: list[bytes]) -> Attack:
    photo = photos[0]
    match rng.randrange(5):
        case 0:
            kinds = ["text/plain", "", "image", "/", ";;;", "a" * 5_000, "application/x-npy", "image/svg+xml"]
            return Attack("wrong type", request(photo, rng.choice(kinds)))
        case 1:
            chunks = [b"zz\r\n", b"-5\r\nabcde\r\n", b"f" * 40 + b"\r\n", b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n"]
            head = request(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
            return Attack("bad chunks", head + rng.choice(chunks))
        case 2:
            encoding = rng.choice(["chunked", "gzip", "x"])
            return Attack("chunks and Content-Length", request(b"0\r\n\r\n", Transfer_Encoding=encoding))
        case 3:
            return Attack("an expectation", request(photo, Expect=rng.choice(["100-continue", "200", ""])))
        case _:
            head = request(photo).split(b"\r\n")
            line = rng.choice([b"a b: c", b": c", b" folded", b"\0: \0", b"X: " + b"y" * 9_000])
            return Attack("invalid header", b"\r\n".join([*head[:2], line, *head[2:]]))


def _odd_headers(rng: random.Random, photos: list[bytes]) -> Attack:
    match rng.randrange(5):
        case 0:
            accept = rng.choice(
                ["image/png", "*/*;q=0", ";", "q=1", "text/*", "a" * 3_000, "application/json;q=nan", "\xff"]
            )
            return Attack("odd Accept", request(photos[0], Accept=accept))
        case 1:
            top_k = rng.choice(["0", "-1", "9" * 50, "²", "nan", "", "1;top_k=2", "\xb2"])
            attributes = {"X_Amzn_SageMaker_Custom_Attributes": f"top_k={top_k}".encode().decode("latin-1")}
            return Attack("odd top_k", request(photos[0], **attributes))
        case 2:
            method = rng.choice(
                [b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"get", b"PROPFIND", b"A" * 500, b"\x16\x03\x01"]
            )
            return Attack("odd method", request(photos[0]).replace(b"POST", method, 1))
        case 3:
            paths = [b"/", b"//", b"/models", b"/%00", b"/%ff%fe", b"/../../etc/passwd", b"*", b"/ping?" + b"a" * 3_000]
            return Attack("odd path", request(photos[0]).replace(b"/invocations", rng.choice(paths), 1))
        case _:
            start = request(photos[0])
            return Attack("not HTTP", _mutate(rng, start[:200], photos[1]) + b"\r\n\r\n", "gone")


def _slow(rng: random.Random, photos: list[bytes]) -> Attack:
    data = request(rng.choice(photos))
    if rng.random() < 0.7:
        return Attack("slow sender", data, "slow")
    return Attack("stalled sender", data[: rng.randrange(1, len(data))], "stalled")


def _gone(rng: random.Random, photos: list[bytes]) -> Attack:
    data = request(rng.choice(photos))
    return Attack("disconnecting client", data[: rng.choice([0, 1, 60, len(data) // 2, len(data), len(data)])], "gone")


if __name__ == "__main__":
    main()

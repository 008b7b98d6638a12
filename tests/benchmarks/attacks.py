"""Hostile requests, random and reproducible by seed: damaged photos, arrays and JSON, false sizes and headers."""

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from support import raw_http
from support.drawing import draw_photo, encode
from support.raw_http import head

MAX_BODY = 25 * 1024 * 1024

# whole: all is sent; a response is expected. half: likewise, and the client closes its sending side. slow: sent in
# small pieces; a response is expected. stalled: the rest is never sent; an error is expected. cut: the client closes
# its sending side in the middle. gone: it disconnects in the middle, or without reading. reset: likewise, by a reset.
Delivery = Literal["whole", "half", "slow", "stalled", "cut", "gone", "reset"]


@dataclass(frozen=True)
class Attack:
    """The bytes of one connection."""

    kind: str
    data: bytes
    delivery: Delivery = "whole"


Maker = Callable[[random.Random, list[bytes]], Attack]


def attacks(count: int, seed: int = 0) -> Iterator[Attack]:
    """Yield ``count`` attacks, reproducible by seed."""
    rng = random.Random(seed)
    photos = _photos()
    for _ in range(count):
        [make] = rng.choices([one for one, _ in MAKERS], [weight for _, weight in MAKERS])
        yield make(rng, photos)


def _photos() -> list[bytes]:
    image = draw_photo(120, 90, seed=3)
    formats = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})]
    files = [encode(image, format, **options) for format, options in formats]
    return [*files, encode(image.convert("CMYK")), encode(image.convert("L"), "PNG"), encode(image, "TIFF")]


def request(body: bytes, content_type: str | None = "image/jpeg", **options: Any) -> bytes:
    """A request after which the server is to close the connection; see ``raw_http.request``."""
    return raw_http.request(body, content_type, **{"Connection": "close", **options})


def chunked(body: bytes, **options: Any) -> bytes:
    """The same in chunks."""
    return raw_http.chunked_request(body, **{"Connection": "close", **options})


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


def to_npy(array: np.ndarray) -> bytes:
    """An array as the bytes of an npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _array(rng: random.Random, photos: list[bytes]) -> Attack:
    shapes = [(1, 3, 64, 64), (3, 64, 64), (2, 64, 64, 3), (70, 3, 8, 8), (0, 3, 64, 64), (), (1, 1, 1, 3), (5,)]
    if rng.random() < 0.3:
        value = rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e9, 0.0])
        dtype = rng.choice(["<f4", ">f4", "<f8", "<f2", "u1", "<i4", "<c8", "?", "U3", "M8[s]"])
        with np.errstate(all="ignore"):
            body = to_npy(
                np.full(rng.choice(shapes), 7 if dtype in ("U3", "u1", "<i4", "M8[s]") else value).astype(dtype)
            )
    elif rng.random() < 0.5:
        body = _mutate(rng, to_npy(np.zeros(rng.choice(shapes[:3]), rng.choice([np.uint8, np.float32]))), photos[0])
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
            return Attack("bad chunks", head(Connection="close", Transfer_Encoding="chunked") + rng.choice(chunks))
        case 2:
            encoding = rng.choice(["chunked", "gzip", "x"])
            return Attack("chunks and Content-Length", request(b"0\r\n\r\n", Transfer_Encoding=encoding))
        case 3:
            return Attack("an expectation", request(photo, Expect=rng.choice(["100-continue", "200", ""])))
        case _:
            lines = request(photo).split(b"\r\n")
            line = rng.choice([b"a b: c", b": c", b" folded", b"\0: \0", b"X: " + b"y" * 9_000])
            return Attack("invalid header", b"\r\n".join([*lines[:2], line, *lines[2:]]))


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


def _chunked(rng: random.Random, photos: list[bytes]) -> Attack:
    data = chunked(_mutate(rng, rng.choice(photos), photos[0]), chunk=rng.choice([100, 1_000, 100_000]))
    match rng.randrange(4):
        case 0:
            start = rng.randrange(len(data))
            return Attack("damaged chunks", data[:start] + rng.randbytes(4) + data[start + 4 :], "cut")
        case 1:
            return Attack("chunks without an end", data[: -rng.choice([1, 5, 50])], "cut")
        case _:
            return Attack("damaged photo in chunks", data, rng.choice(["whole", "half"]))


def _framing(rng: random.Random, photos: list[bytes]) -> Attack:
    """Requests on which two parsers might not agree where they end."""
    photo = photos[0]
    data = rng.choice(
        [
            chunked(photo, Transfer_Encoding="gzip, chunked"),
            chunked(photo, Transfer_Encoding="chunked, chunked"),
            chunked(photo, Transfer_Encoding="\x0bchunked"),
            chunked(photo, Content_Length=str(len(photo))),
            chunked(photo, version="1.0"),
            request(photo).replace(b"\r\n", b"\n", rng.randrange(1, 7)),
            request(photo).replace(b"Content-Length:", b"Content-Length :"),
            request(photo, X="a\r b"),
            request(photo, Host=None),
            request(photo, Host="a\r\nHost: b"),
            request(photo, Content_Encoding=rng.choice(["gzip", "br", "identity", ""])),
            request(photo, None),
            request(photo, target=rng.choice(["http://", "http://a/invocations", "https://[::1", "a:1", "//a/b"])),
            request(photo, version=rng.choice(["1.2", "2.0", "0.9", "11", "1.1 x"])),
        ]
    )
    return Attack("odd framing", data)


def _large_head(rng: random.Random, photos: list[bytes]) -> Attack:
    match rng.randrange(4):
        case 0:
            headers = {f"X{number}": "y" * 8_000 for number in range(rng.choice([3, 5, 100]))}
        case 1:
            headers = {f"X{number}": "y" for number in range(rng.choice([90, 1_000, 10_000]))}
        case 2:
            headers = {"X" * 40_000: "y"}
        case _:
            return Attack("long target", request(photos[0], target="/" + "x" * rng.choice([5_000, 40_000])))
    return Attack("large head", request(photos[0], **headers))


@lru_cache
def json_bombs() -> tuple[bytes, ...]:
    """JSON bodies of the largest size that is allowed, each costly for some way to parse it."""
    return (
        b'"' * MAX_BODY,
        b'{"image": "' + b"\\" * (MAX_BODY - 11),
        b'{"instances": [' + b"[]," * (MAX_BODY // 3 - 10) + b"[]]}",
        b'{"instances": [' + b'"",' * (MAX_BODY // 3 - 10) + b'""]}',
        b"[" * MAX_BODY,
        b"9" * MAX_BODY,
        b'{"image": "' + b"A" * (MAX_BODY - 15) + b'"}',
    )


@lru_cache
def tiff_bomb(mode: str = "F", side: int = 7_000) -> bytes:
    """A TIFF of less than a megabyte that unpacks to hundreds."""
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, "TIFF", compression="tiff_deflate")
    return stream.getvalue()


def _large_bomb(rng: random.Random, _photos: list[bytes]) -> Attack:
    if rng.random() < 0.5:
        return Attack("JSON bomb", request(rng.choice(json_bombs()), "application/json"))
    return Attack("TIFF bomb", request(tiff_bomb(rng.choice(["F", "I", "CMYK", "RGBA"]), 7_000), "image/tiff"))


def _slow(rng: random.Random, photos: list[bytes]) -> Attack:
    data = request(rng.choice(photos))
    if rng.random() < 0.7:
        return Attack("slow sender", data, "slow")
    return Attack("stalled sender", data[: rng.randrange(1, len(data))], "stalled")


def _gone(rng: random.Random, photos: list[bytes]) -> Attack:
    data = request(rng.choice(photos))
    data = data[: rng.choice([0, 1, 60, len(data) // 2, len(data), len(data)])]
    return Attack("disconnecting client", data, rng.choice(["gone", "reset"]))


MAKERS: list[tuple[Maker, float]] = [
    (_damaged_photo, 34),
    (_bomb, 8),
    (_array, 14),
    (_json, 16),
    (_lying_length, 6),
    (_lying_headers, 5),
    (_odd_headers, 7),
    (_chunked, 8),
    (_framing, 6),
    (_large_head, 3),
    (_large_bomb, 0.2),
    (_slow, 2),
    (_gone, 6),
]

"""Content negotiation, request bodies and their limits, response bodies."""

import base64
import contextlib
import io
import json
import pickle
import struct
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import ImageError, MediaTypeError
from classifier.serving import codec, json_photos
from classifier.serving.codec import Prediction, ResponseFormat, negotiate
from classifier.serving.errors import AcceptError, RequestError, TooLargeError
from classifier.serving.settings import ServerSettings
from support.drawing import draw_photo, encode

JSON = "application/json"
JSON_LINES = "application/jsonlines"
SETTINGS = ServerSettings(max_instances=4, max_image_mb=0.01)


def decode(body: bytes, content_type: str = "application/json") -> codec.Photos:
    return codec.decode(body, content_type, SETTINGS)


def photos_of(body: bytes, content_type: str = "application/json") -> list[codec.Instance]:
    return list(decode(body, content_type).instances)


def instance(data: bytes = b"photo") -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def arrays(photos: codec.Photos) -> np.ndarray:
    return np.stack([one for one in photos.instances if isinstance(one, np.ndarray)])


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        ("application/*", JSON),
        ("text/*", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("application/x-npy", "application/x-npy"),
        ("image/png, application/jsonlines", JSON_LINES),
        ("text/csv;q=0.5, application/x-npy;q=0.9", "application/x-npy"),
        ("text/csv;q=0, application/json", JSON),
        ("text/csv;q=nonsense, application/json", JSON),
        ("text/html, */*;q=0.1", JSON),
    ],
)
def test_preferred_media_type_is_chosen(accept: str, media_type: str) -> None:
    assert negotiate(accept, JSON).media_type == media_type


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/xml;q=1", "application/json;q=0", ";", ",;,q"])
def test_unsupported_media_types_are_rejected(accept: str) -> None:
    with pytest.raises(AcceptError, match="application/json"):
        negotiate(accept, JSON)


@pytest.mark.parametrize("accept", ["application/json;verbose", "application/json; verbose=true; q=0.5"])
def test_verbose_is_a_parameter_of_the_media_type(accept: str) -> None:
    assert negotiate(accept, JSON) == ResponseFormat("application/json", verbose=True)


@pytest.mark.parametrize("accept", ["", "*/*"])
def test_default_is_configurable(accept: str) -> None:
    assert negotiate(accept, "text/csv") == ResponseFormat("text/csv")
    assert negotiate(accept, "application/json;verbose") == ResponseFormat("application/json", verbose=True)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/jpeg",
        "image/png",
        "image/x-anything",
        "IMAGE/JPEG; q=1",
        "application/x-image",
        "application/octet-stream",
    ],
)
def test_image_is_a_single_photo_of_any_content_type(content_type: str) -> None:
    assert decode(b"bytes", content_type) == codec.Photos([b"bytes"], single=True)


def test_json_has_one_photo_or_several() -> None:
    assert decode(json.dumps(instance()).encode()) == codec.Photos([b"photo"], single=True)
    assert decode(json.dumps({"instances": [instance(), instance(b"b")]}).encode()) == codec.Photos([b"photo", b"b"])


def test_data_url_is_decoded() -> None:
    url = "data:image/jpeg;base64," + instance()["image"]
    assert decode(json.dumps({"image": url}).encode()).instances == [b"photo"]


def test_json_lines_have_one_photo_per_line() -> None:
    body = b"\n".join(json.dumps(instance(bytes([n]))).encode() for n in (1, 2)) + b"\n\n"
    assert photos_of(body, JSON_LINES) == [b"\1", b"\2"]


def test_invalid_base64_is_an_error_of_its_instance_only() -> None:
    photos = decode(json.dumps({"instances": [instance(), {"image": "?"}, instance()]}).encode())
    assert [type(one) for one in photos.instances] == [bytes, ImageError, bytes]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"instances": {}}',
        b'{"instances": []}',
        b'{"instances": null}',
        b'{"instances": [1,]}',
        b'{"image": 1}',
        b"\xff\xfe{}",
        b'{"image": "' + b"A" * 100,
        b"1" * 5000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b"[" * 60_000,
    ],
)
def test_malformed_json_is_rejected(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode(body)


@pytest.mark.parametrize("tail", [b'\\"' * 500_000, b'\\"' * 500_000 + b"\\", b'"' * 1_000_000])
def test_unterminated_strings_take_linear_time(tail: bytes) -> None:
    # In quadratic time this would take hours; the suite's timeout is the limit.
    with pytest.raises(RequestError):
        decode(b'{"image": "' + tail)


def test_too_many_instances_are_rejected() -> None:
    with pytest.raises(TooLargeError, match="5 instances; at most 4"):
        decode(json.dumps({"instances": [instance()] * 5}).encode())
    with pytest.raises(TooLargeError):
        decode(npy(np.zeros((5, 4, 4, 3), np.uint8)), "application/x-npy")


def test_image_over_the_limit_is_rejected_in_every_request_type() -> None:
    data = bytes(20_000)
    for body, kind in [
        (data, "image/png"),
        (json.dumps(instance(data)).encode(), "application/json"),
        (npy(np.zeros((100, 100, 3), np.uint8)), "application/x-npy"),
    ]:
        with pytest.raises(TooLargeError):
            decode(body, kind)


@pytest.mark.parametrize("content_type", ["text/plain", "image", "application/x-python-pickle"])
def test_unknown_content_type_is_rejected(content_type: str) -> None:
    with pytest.raises(MediaTypeError, match="image/"):
        decode(b"x", content_type)


def test_npy_arrays_are_pixels_or_tensors() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    photos = decode(npy(pixels), "application/x-npy")
    assert not photos.single
    np.testing.assert_array_equal(arrays(photos), pixels)
    tensor = np.zeros((1, 3, 4, 4), np.float64)
    assert arrays(decode(npy(tensor), "application/x-npy")).shape == (1, 3, 4, 4)
    assert decode(npy(pixels[0]), "application/x-npy").single
    fortran = np.asfortranarray(pixels)
    np.testing.assert_array_equal(arrays(decode(npy(fortran), "application/x-npy")), pixels)


def _npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        pickle.dumps(np.zeros(3)),
        _npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
        _npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 9999999999, 4, 3)}", b"x"),
        _npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4, 3)}"),
        _npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 1, 1, 3)}", b"xxx"),
        _npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4, 4, 3)}"),
        _npy_with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1, 1, 3)}", bytes(24)),
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", bytes(4)),
        _npy_with_header("__import__('os').system('false')"),
        _npy_with_header("(" * 1000),
    ],
)
def test_pickled_arrays_and_false_headers_are_rejected(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode(body, "application/x-npy")


MIB = 1024 * 1024
SIZE = 2 * MIB
EMPTY = b'{"image":""}'


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


HOSTILE = {
    "quotes": filled(b"", b'"', b""),
    "brackets": filled(b"", b"[", b""),
    "nested objects": filled(b"", b'{"a":', b""),
    "instances": filled(b'{"instances":[', EMPTY + b",", EMPTY + b"]}"),
    "empty lists": filled(b'{"instances":[', b"[],", b"[]]}"),
    "numbers": filled(b'{"instances":[', b"1,", b"1]}"),
    "spaces": filled(b'{"image":', b" ", b'""}'),
    "newlines": filled(b"", b"\n", b""),
    "a long key": filled(b'{"', b"a", b'":1}'),
    "an escaped key": filled(b'{"', rb"\u0041", b'":1}'),
    "many keys": filled(b"{", b'"a":1,', b'"image":""}'),
    "the same key": filled(b"{", b'"image":"AAAA",', b'"image":""}'),
    "a long number": filled(b'{"image":', b"1", b"}"),
    "escapes": filled(b'{"image":"', rb"\u0041", b'"}'),
    "escaped slashes": filled(b'{"image":"', rb"\/", b'"}'),
    "some escapes": filled(b'{"image":"', b"A" * 15 + rb"\/", b'"}'),
    "surrogates": filled(b'{"image":"', rb"\ud83d\ude00", b'"}'),
    "one wide character": filled(b'{"image":"', b"A", rb'\ud83d\ude00"}'),
    "invalid UTF-8": filled(b'{"image":"', b"\xff", b'"}'),
    "base64": filled(b'{"image":"', b"AAAA", b'"}'),
    "padding": filled(b'{"image":"', b"AA==", b'"}'),
}
HOSTILE_LINES = {
    "empty photos": filled(b"", EMPTY + b"\n", b""),
    "digits": filled(b"", b"1\n", b""),
    "blank lines": filled(b"", b" \n", b""),
    "one line": filled(b"", b'"', b""),
}
BODIES = [(JSON, body) for body in HOSTILE.values()] + [(JSON_LINES, one) for one in HOSTILE_LINES.values()]


def cpu_s(body: bytes, kind: str) -> float:
    """Take every photo of a body; return the seconds that this took of this thread's time."""
    start = time.thread_time()
    with contextlib.suppress(RequestError, ImageError):
        for _ in codec.decode(body, kind, ServerSettings()).instances:
            pass
    return time.thread_time() - start


@pytest.mark.parametrize(("kind", "body"), BODIES, ids=[*HOSTILE, *HOSTILE_LINES])
def test_hostile_json_costs_no_more_than_a_photo_of_its_size(kind: str, body: bytes) -> None:
    tracemalloc.start()
    cpu_s(body, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # With the body itself: 4 times its size.
    assert peak < 3 * len(body)
    assert any(cpu_s(body, kind) < 8 * cpu_s(HOSTILE["base64"], JSON) for _ in range(5))


@pytest.mark.parametrize("body", [HOSTILE["quotes"], HOSTILE["some escapes"], HOSTILE["base64"], HOSTILE["spaces"]])
def test_other_threads_run_while_a_large_body_is_read(body: bytes) -> None:
    done = threading.Event()
    turns = 0

    def take_turns() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    other = threading.Thread(target=take_turns)
    try:
        other.start()
        cpu_s(body, JSON)
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(interval)
    assert turns >= 3


@pytest.mark.parametrize("name", ["escapes", "escaped slashes", "an escaped key"])
def test_a_large_body_of_escapes_is_rejected_before_it_is_parsed(name: str) -> None:
    with pytest.raises(TooLargeError, match="an eighth of the JSON consists of escapes"):
        decode(HOSTILE[name])


def test_a_long_number_is_rejected_before_it_is_parsed() -> None:
    with pytest.raises(TooLargeError, match="a number of more than 262,144 digits"):
        decode(HOSTILE["a long number"])


def test_large_bodies_are_parsed_one_at_a_time() -> None:
    with json_photos.parsing_large:
        assert decode(json.dumps(instance()).encode()).single
        thread = threading.Thread(target=decode, args=(filled(b'{"x":"', b"A", b'","image":""}'),))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "text",
    [r"{}", r"data:image/jpeg;base64,{}", r"data:image\/jpeg;base64,{}"],
    ids=["base64", "data URL", "data URL of PHP"],
)
@pytest.mark.parametrize("escape", [lambda text: text, lambda text: text.replace("/", r"\/").replace("+", r"\u002B")])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 2_000_001])
def test_base64_is_decoded_whatever_its_escapes(text: str, escape: Callable[[str], str], size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    image = text.format(escape(base64.b64encode(data).decode())).encode()
    assert codec.decode(b'{"image":"%b"}' % image, JSON, ServerSettings()).instances == [data]


@given(text=st.text('A+/=\\"u0b4é 😀', max_size=24), slice_size=st.integers(8, 20))
def test_base64_is_decoded_as_by_the_standard_library(text: str, slice_size: int) -> None:
    try:
        expected = base64.b64decode(text, validate=True)
    except ValueError:
        expected = None
    for ascii_only in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_photos, "SLICE", slice_size)
            [found] = photos_of(b'{"instances":[{"image":%b}]}' % json.dumps(text, ensure_ascii=ascii_only).encode())
        assert found == expected if expected is not None else isinstance(found, ImageError)


def test_base64_is_decoded_across_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_photos, "SLICE", 8)
    for before in range(12):
        for escaped in (r"\/", r"\u002f"):
            text = "A" * before + escaped * 2 + "A" * (14 - before)
            assert photos_of(b'{"image":"%b"}' % text.encode()) == [base64.b64decode(json.loads(f'"{text}"'))]
    for text in (b"AAAAAA==AAAA", b"AAAAAA==AA==", b"AAAAAA==A"):
        with pytest.raises(ImageError, match="not base64: Excess data after padding"):
            decode(b'{"image":"%b"}' % text)


def test_byte_order_mark_and_unknown_fields_are_skipped() -> None:
    body = json.dumps({"id": [1, {"a": None}], "image": "AAAA", "image_name": "x"}).encode()
    assert photos_of(b"\xef\xbb\xbf" + body) == [b"\0\0\0"]
    assert photos_of(b'{"image":"AAAA","image":"////"}') == [b"\xff\xff\xff"]


def test_error_of_one_photo_stays_in_its_place() -> None:
    large = instance(bytes(20_000))
    entries = [instance(), 1, {"photo": "AAAA"}, {"image": 1}, large, {"image": "?"}, instance(b"b")]
    expected = [bytes, RequestError, RequestError, RequestError, TooLargeError, ImageError, bytes]
    lines = b"\n".join([*(json.dumps(one).encode() for one in entries), b"{", b"\xff", b"[" * 100_000])
    found = [type(one) for one in photos_of(lines, JSON_LINES)]
    assert found == [*expected, RequestError, RequestError, TooLargeError]
    for start in (0, 3):
        body = json.dumps({"instances": entries[start : start + 4]}).encode()
        assert [type(one) for one in photos_of(body)] == expected[start : start + 4]


def test_json_lines_are_limited_by_their_bytes() -> None:
    settings = ServerSettings(max_instances=1, max_body_mb=1)
    line = json.dumps(instance(bytes(400))).encode() + b"\n"
    num_lines = settings.max_body // len(line)
    photos = codec.decode(line * num_lines, JSON_LINES, settings)
    assert sum(isinstance(one, bytes) for one in photos.instances) == num_lines
    limit = settings.max_body // json_photos.MIN_LINE
    codec.decode(b"1\n" * limit, JSON_LINES, settings)
    with pytest.raises(TooLargeError, match=f"{limit + 1:,} lines; at most {limit:,}"):
        codec.decode(b"1\n" * (limit + 1), JSON_LINES, settings)


def test_multi_model_documents_are_small() -> None:
    assert json_photos.parse_json(b'{"model_name": "a", "url": "/b"}') == {"model_name": "a", "url": "/b"}
    with pytest.raises(TooLargeError, match="65,537 bytes"):
        json_photos.parse_json(b" " * (64 * 1024 + 1))
    for body in (b"", b"[" * 60_000, b"{'a': 1}", b'"\xff"'):
        with pytest.raises(RequestError):
            json_photos.parse_json(body)


def test_photo_is_told_by_its_bytes_without_a_content_type() -> None:
    assert decode(b"bytes", "") == codec.Photos([b"bytes"], single=True)
    photo = encode(draw_photo())
    form = "application/x-www-form-urlencoded"
    assert decode(photo, form) == codec.Photos([photo], single=True)
    for body, kind in [(b"image=abc", form), (photo, "multipart/form-data; boundary=x")]:
        with pytest.raises(MediaTypeError, match=r"curl --data-binary @photo\.jpg -H 'Content-Type: image/jpeg'"):
            decode(body, kind)


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "GZIP"])
def test_compressed_bodies_are_rejected_by_name(encoding: str) -> None:
    with pytest.raises(MediaTypeError, match=encoding):
        codec.check_encoding(encoding)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_bodies_that_are_not_compressed_are_accepted(encoding: str) -> None:
    codec.check_encoding(encoding)


KINDS = ["application/json", JSON_LINES, "application/x-npy", "image/png", "text/csv"]


@given(body=st.binary(max_size=300), kind=st.sampled_from(KINDS))
def test_arbitrary_bytes_are_photos_or_an_error(body: bytes, kind: str) -> None:
    with contextlib.suppress(RequestError, MediaTypeError, ImageError):
        assert photos_of(body, kind)


@given(header=st.text(max_size=80), data=st.binary(max_size=30))
def test_arbitrary_npy_header_is_read_or_an_error(header: str, data: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode(_npy_with_header(header, data), "application/x-npy")


def test_limits_are_inclusive() -> None:
    limit = SETTINGS.max_image
    assert decode(bytes(limit), "image/png").instances == [bytes(limit)]
    with pytest.raises(TooLargeError):
        decode(bytes(limit + 1), "image/png")
    four = [instance()] * 4
    assert len(photos_of(json.dumps({"instances": four}).encode())) == 4
    assert len(photos_of(npy(np.zeros((4, 4, 4, 3), np.uint8)), "application/x-npy")) == 4


def test_limit_of_json_structure_is_inclusive() -> None:
    empty = b'{"image":"","a":[0%s]}'
    room = json_photos.MAX_STRUCTURE - len(b'{"""","[' + b'"')
    assert photos_of(empty % (b",0" * room)) == [b""]
    with pytest.raises(TooLargeError, match="more than 65,536 quotes"):
        decode(empty % (b",0" * (room + 1)))


def test_limit_of_an_image_applies_to_each_photo_of_an_array() -> None:
    side = 40
    assert side * side * 3 < SETTINGS.max_image < 4 * side * side * 3
    assert len(photos_of(npy(np.zeros((4, side, side, 3), np.uint8)), "application/x-npy")) == 4


def prediction(*logits: float) -> Prediction:
    names = [f"class-{index}" for index in range(len(logits))]
    return Prediction(labels=names, class_names=names, logits=np.array(logits, np.float32))


def ranked(outcome: Prediction, top_k: int) -> list[tuple[str, float]]:
    body = codec.encode([outcome], ResponseFormat("application/json"), single=True, top_k=top_k)
    return [(one["label"], one["probability"]) for one in json.loads(body)["predictions"]]


def test_softmax_of_large_logits_is_exact() -> None:
    expected = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(prediction(10_001, 10_000).probabilities, [expected, 1 - expected])
    np.testing.assert_allclose(prediction(-10_000, -9_999).probabilities, [1 - expected, expected])
    np.testing.assert_allclose(prediction(1e30, -1e30).probabilities, [1, 0])


def test_ties_are_listed_in_the_order_of_the_classes() -> None:
    many = prediction(*[0.0, 1.0] * 20)
    expected = [f"class-{index}" for index in (*range(1, 40, 2), 0, 2, 4)]
    assert [label for label, _ in ranked(many, 23)] == expected

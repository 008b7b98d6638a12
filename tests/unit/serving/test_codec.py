"""Bodies → photos, and what is refused before anything is decoded."""

import base64
import contextlib
import io
import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import ImageError, MediaTypeError
from classifier.serving import codec
from classifier.serving.errors import RequestError, TooLargeError
from classifier.serving.settings import Settings

SETTINGS = Settings(max_instances=4, max_image_mb=0.01)


def decode(body: bytes, content_type: str = "application/json") -> codec.Photos:
    return codec.decode(body, content_type, SETTINGS)


def instance(data: bytes = b"photo") -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def arrays(photos: codec.Photos) -> np.ndarray:
    return np.stack([one for one in photos.items if isinstance(one, np.ndarray)])


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
def test_images_are_one_photo_whatever_their_name(content_type: str) -> None:
    assert decode(b"bytes", content_type) == codec.Photos([b"bytes"], single=True)


def test_json_holds_one_photo_or_several() -> None:
    assert decode(json.dumps(instance()).encode()) == codec.Photos([b"photo"], single=True)
    assert decode(json.dumps({"instances": [instance(), instance(b"b")]}).encode()) == codec.Photos([b"photo", b"b"])


def test_a_data_url_is_base64_too() -> None:
    url = "data:image/jpeg;base64," + instance()["image"]
    assert decode(json.dumps({"image": url}).encode()).items == [b"photo"]


def test_json_lines_hold_a_photo_a_line() -> None:
    body = b"\n".join(json.dumps(instance(bytes([n]))).encode() for n in (1, 2)) + b"\n\n"
    assert decode(body, "application/jsonlines").items == [b"\1", b"\2"]


def test_an_instance_of_bad_base64_costs_its_neighbours_nothing() -> None:
    photos = decode(json.dumps({"instances": [instance(), {"image": "?"}, instance()]}).encode())
    assert [type(one) for one in photos.items] == [bytes, ImageError, bytes]


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
        b'{"instances": [1]}',
        b'{"instances": [{"photo": "AAAA"}]}',
        b'{"image": 1}',
        b"\xff\xfe{}",
        b'{"image": "' + b"A" * 100,
        b"1" * 5000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b"[" * 60_000,
    ],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode(body)


def test_json_that_would_swell_when_parsed_is_refused_before() -> None:
    with pytest.raises(TooLargeError, match="outside strings"):
        decode(b"[" + b"[]," * 100_000 + b"[]]")


@pytest.mark.parametrize("tail", [b'\\"' * 500_000, b'\\"' * 500_000 + b"\\", b'"' * 1_000_000])
def test_strings_without_an_end_take_linear_time(tail: bytes) -> None:
    # Quadratic, this would take hours; the suite's own patience is the limit.
    with pytest.raises(RequestError):
        decode(b'{"image": "' + tail)


def test_too_many_instances_are_refused() -> None:
    with pytest.raises(TooLargeError, match="5 instances; at most 4"):
        decode(json.dumps({"instances": [instance()] * 5}).encode())
    with pytest.raises(TooLargeError, match="more than 4 lines"):
        decode(b"\n".join([json.dumps(instance()).encode()] * 5), "application/jsonlines")
    with pytest.raises(TooLargeError):
        decode(npy(np.zeros((5, 4, 4, 3), np.uint8)), "application/x-npy")


def test_an_image_over_its_limit_is_refused_in_every_wrapping() -> None:
    data = bytes(20_000)
    for body, kind in [
        (data, "image/png"),
        (json.dumps(instance(data)).encode(), "application/json"),
        (json.dumps({"instances": [instance(data)]}).encode(), "application/json"),
        (npy(np.zeros((100, 100, 3), np.uint8)), "application/x-npy"),
    ]:
        with pytest.raises(TooLargeError):
            decode(body, kind)


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data", "application/x-python-pickle"])
def test_an_unknown_content_type_is_refused(content_type: str) -> None:
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
def test_lying_and_pickled_arrays_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode(body, "application/x-npy")


KINDS = ["application/json", "application/jsonlines", "application/x-npy", "image/png", "text/csv"]


@given(body=st.binary(max_size=300), kind=st.sampled_from(KINDS))
def test_any_bytes_are_photos_or_refused(body: bytes, kind: str) -> None:
    with contextlib.suppress(RequestError, MediaTypeError, ImageError):
        assert decode(body, kind).items


@given(header=st.text(max_size=80), data=st.binary(max_size=30))
def test_any_npy_header_is_read_or_refused(header: str, data: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode(_npy_with_header(header, data), "application/x-npy")

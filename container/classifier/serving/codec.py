"""Request and response bodies: content negotiation, decoding with limits, encoding of predictions.

Independent of any web framework. Nothing is ever unpickled.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from classifier.errors import MediaTypeError, UserError
from classifier.serving.errors import AcceptError, RequestError, TooLargeError
from classifier.serving.json_photos import check_image_size, read_instance, read_lines, read_request
from classifier.serving.settings import MIB, RESPONSE_TYPES, ResponseType, ServerSettings
from classifier.vision.calibration import softmax
from classifier.vision.images import is_image

JSON = "application/json"
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl")
NPY = "application/x-npy"
# Content types whose bodies are images in a format found from their first bytes, besides image/*.
SNIFFED = ("application/x-image", "application/octet-stream")
_URL_ENCODED = "application/x-www-form-urlencoded"  # curl's default for --data-binary
_MULTIPART = "multipart/form-data"
_HOW_TO_SEND = "send the photo itself as the body, such as curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"
# Bytes; many photos with all classes of a large model could otherwise need any amount of memory.
MAX_RESPONSE = 32 * MIB

# A photo of a request: a file's bytes, uint8 pixels (H, W, 3), a normalized float tensor (3, S, S), or its error.
Instance = bytes | np.ndarray | UserError


@dataclass(frozen=True)
class ResponseFormat:
    """The media type of a response. ``verbose``: with the probabilities and logits of all classes."""

    media_type: ResponseType
    verbose: bool = False


@dataclass(frozen=True)
class Photos:
    """The photos of a request body, to be taken once. ``single``: respond with one prediction instead of a list."""

    instances: Iterable[Instance]
    single: bool = False


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The logits of one photo, float32 (num_classes,), and the labels and names of the classes in the same order.

    ``temperature`` calibrates the probabilities; the logits are the model's own.
    """

    labels: Sequence[str]
    class_names: Sequence[str]
    logits: np.ndarray
    temperature: float = 1.0

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities, softmax(logits / temperature), float64 (num_classes,)."""
        return softmax(self.logits, self.temperature)


Outcome = Prediction | UserError


# Content negotiation


@dataclass(frozen=True)
class _MediaRange:
    kind: str
    quality: float
    verbose: bool


# Clients send the same few headers again and again.
@lru_cache(maxsize=64)
def negotiate(accept: str, default: str) -> ResponseFormat:
    """Choose the response format from an ``Accept`` header.

    Args:
        accept: the header; ``*/*``, or an empty one, selects the default.
        default: a media type that can be written, with parameters such as ``;verbose``.

    Raises:
        AcceptError: none of the accepted media types can be written.
    """
    for wanted in _media_ranges(accept):
        if wanted.kind == "*/*":
            fallback = _media_ranges(default)[0]
            return ResponseFormat(_first_match(fallback.kind) or RESPONSE_TYPES[0], fallback.verbose)
        media_type = _first_match(wanted.kind)
        if media_type is not None:
            return ResponseFormat(media_type, wanted.verbose)
    raise AcceptError(f"can't respond with {accept[:200]!r}; supported are {', '.join(RESPONSE_TYPES)}")


def _first_match(kind: str) -> ResponseType | None:
    prefix = kind.removesuffix("*")
    return next((one for one in RESPONSE_TYPES if one == kind or (prefix != kind and one.startswith(prefix))), None)


def _media_ranges(accept: str) -> list[_MediaRange]:
    """The ranges in order of quality, without those of quality 0; an empty header accepts anything."""
    parts = [_media_range(part) for part in accept.split(",") if part.strip()]
    ranges = parts or [_MediaRange("*/*", 1, verbose=False)]
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def _media_range(text: str) -> _MediaRange:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    return _MediaRange(kind, _quality(quality), verbose="verbose" in parameters or "verbose=true" in parameters)


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


# Request bodies


def check_encoding(encoding: str) -> None:
    """Check a request's ``Content-Encoding``.

    Raises:
        MediaTypeError: the body is compressed.
    """
    if encoding.strip().lower() not in ("", "identity"):
        raise MediaTypeError(
            f"Content-Encoding {encoding[:50]!r} is not supported: send the body without it (photos are compressed)"
        )


def decode(body: bytes, content_type: str, settings: ServerSettings) -> Photos:
    """Split a request body into its photos, which are not decoded yet.

    Args:
        content_type: the header; an empty one, which is what boto3 sends by default, stands for an image.

    Raises:
        MediaTypeError: the content type is not supported.
        TooLargeError: a photo or the number of photos exceeds its limit.
        RequestError: the body does not match its content type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    read = _READERS.get(kind)
    if read is not None:
        return read(body, settings)
    if kind in ("", *SNIFFED) or kind.startswith("image/") or (kind == _URL_ENCODED and is_image(body)):
        check_image_size(len(body), settings)
        return Photos([body], single=True)
    how = f": {_HOW_TO_SEND}" if kind in (_URL_ENCODED, _MULTIPART) else ""
    raise MediaTypeError(
        f"can't read {content_type[:200]!r}{how}; "
        f"supported are image/*, {', '.join(SNIFFED)}, {JSON}, {JSON_LINES[0]}, {NPY}"
    )


def _check_count(count: int, settings: ServerSettings) -> None:
    if not count:
        raise RequestError("the body has no instances")
    if count > settings.max_instances:
        raise TooLargeError(f"{count} instances; at most {settings.max_instances} are allowed in one request")


def _from_json(body: bytes, settings: ServerSettings) -> Photos:
    read = read_request(body, settings)
    if isinstance(read, bytes):
        return Photos([read], single=True)
    _check_count(len(read), settings)
    return Photos([read_instance(one, settings) for one in read])


def _from_json_lines(body: bytes, settings: ServerSettings) -> Photos:
    if not body or body.isspace():
        raise RequestError("the body has no instances")
    return Photos(read_lines(body, settings))


def _from_npy(body: bytes, settings: ServerSettings) -> Photos:
    array = _load_npy(body)
    _check_count(len(array) if array.ndim == 4 else 1, settings)
    check_image_size(len(body) // max(len(array), 1) if array.ndim == 4 else len(body), settings)
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3:
        return _split(array)
    if array.dtype.kind == "f" and array.ndim in (3, 4) and array.shape[-3] == 3:
        return _split(array)
    raise RequestError(
        f"the array is {array.dtype} {array.shape}; "
        "it should be uint8 pixels (N, H, W, 3) or a float tensor (N, 3, H, W)"
    )


def _split(array: np.ndarray) -> Photos:
    return Photos([array], single=True) if array.ndim == 3 else Photos([np.asarray(one) for one in array])


def _load_npy(body: bytes) -> np.ndarray:
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:
        # The header is an untrusted Python literal, and numpy raises almost anything on malformed ones.
        raise RequestError(f"the body is not an npy array: {str(error)[:200]}") from None
    if dtype.kind not in "uf" or dtype.hasobject:
        raise RequestError(f"arrays of {str(dtype)[:50]!r} are not supported; send uint8 or floats")
    return _array_of(body, stream.tell(), shape, dtype, fortran)


def _array_of(body: bytes, start: int, shape: tuple[int, ...], dtype: np.dtype, fortran: bool) -> np.ndarray:
    # In Python's integers: numpy's product would overflow on a header with a false shape.
    num_bytes = dtype.itemsize
    for size in shape:
        num_bytes *= size
    if any(size < 1 for size in shape) or num_bytes != len(body) - start:
        raise RequestError(f"the array's header says {shape} of {dtype}, but {len(body) - start:,} bytes follow it")
    return np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


_READERS: dict[str, Callable[[bytes, ServerSettings], Photos]] = {
    JSON: _from_json,
    **dict.fromkeys(JSON_LINES, _from_json_lines),
    NPY: _from_npy,
}


# Response bodies


def encode(outcomes: Iterable[Outcome], response_format: ResponseFormat, *, single: bool, top_k: int) -> bytes:
    """Write predictions as a response body.

    Args:
        outcomes: one per photo of the request, in order; each is written before the next is taken.
        response_format: from ``negotiate``.
        single: write one prediction instead of a list.
        top_k: number of classes listed per photo, from the most probable.

    Raises:
        UserError: the first error of a photo, if no photo could be read, or the media type has no place for errors.
        TooLargeError: the response exceeds ``MAX_RESPONSE``.
    """
    if response_format.media_type == "text/csv":
        return _join(_to_csv(one, top_k) for one in _predictions(outcomes, single=single))
    if response_format.media_type == NPY:
        return _to_npy(_predictions(outcomes, single=single))
    documents = _documents(outcomes, response_format, top_k, single=single)
    if response_format.media_type == "application/jsonlines":
        return _join(one + b"\n" for one in documents)
    if single:
        return _join(documents)
    return b'{"predictions":[%b]}' % _join(one if index == 0 else b"," + one for index, one in enumerate(documents))


def _join(parts: Iterable[bytes]) -> bytes:
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MAX_RESPONSE:
            raise TooLargeError(
                f"the response exceeds {MAX_RESPONSE // MIB} MB; send fewer photos in a request, or a smaller top_k"
            )
    return bytes(body)


def _predictions(outcomes: Iterable[Outcome], *, single: bool) -> Iterator[Prediction]:
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, UserError):
            raise _with_place(outcome, index, single=single)
        yield outcome


def _documents(
    outcomes: Iterable[Outcome], response_format: ResponseFormat, top_k: int, *, single: bool
) -> Iterator[bytes]:
    first_error, has_prediction = None, False
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Prediction):
            has_prediction = True
        elif first_error is None:
            first_error = _with_place(outcome, index, single=single)
        yield dump_json(_document(outcome, response_format, top_k)).encode()
    if first_error is not None and not has_prediction:
        raise first_error


def _with_place(error: UserError, index: int, *, single: bool) -> UserError:
    return error if single else type(error)(f"instance {index}: {error}")


def _document(outcome: Outcome, response_format: ResponseFormat, top_k: int) -> dict[str, Any]:
    if isinstance(outcome, UserError):
        return error_document(outcome)
    ranked = _top(outcome, top_k)
    best = {"predicted_label" if name == "label" else name: value for name, value in ranked[0].items()}
    document = {**best, "predictions": ranked}
    if response_format.verbose:
        document |= {
            "labels": list(outcome.labels),
            "class_names": list(outcome.class_names),
            "probabilities": outcome.probabilities.tolist(),
            "logits": outcome.logits.tolist(),
        }
    return document


def _top(prediction: Prediction, top_k: int) -> list[dict[str, Any]]:
    """The most probable classes; equal ones in the order of the classes."""
    probabilities = prediction.probabilities
    best = np.argsort(-prediction.logits, kind="stable")[:top_k]
    return [
        {
            "label": prediction.labels[index],
            "class_name": prediction.class_names[index],
            "probability": float(probabilities[index]),
        }
        for index in best
    ]


def _to_csv(prediction: Prediction, top_k: int) -> bytes:
    """One line: label, class name and probability of each listed class."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        [value for place in _top(prediction, top_k) for value in place.values()]
    )
    return text.getvalue().encode()


def _to_npy(predictions: Iterator[Prediction]) -> bytes:
    """The logits, float32 (N, num_classes)."""
    first = next(predictions)
    rows = _join(one.logits.tobytes() for one in chain([first], predictions))
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(rows, first.logits.dtype).reshape(-1, len(first.logits)), allow_pickle=False)
    return stream.getvalue()


def error_document(error: UserError | Exception, message: str | None = None) -> dict[str, Any]:
    """``{"error": {"type", "message"}}``, the body of every error response."""
    return {"error": {"type": type(error).__name__, "message": str(error) if message is None else message}}


def dump_json(document: object) -> str:
    """Compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

"""Request and response bodies: content negotiation, decoding with limits, encoding of predictions.

Independent of any web framework. Nothing is ever unpickled.
"""

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from classifier.errors import ImageError, MediaTypeError, UserError
from classifier.serving.errors import AcceptError, RequestError, TooLargeError
from classifier.serving.settings import RESPONSE_TYPES, ResponseType, ServerSettings
from classifier.vision.calibration import softmax

JSON = "application/json"
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl")
NPY = "application/x-npy"
# Content types whose bodies are images in a format found from their first bytes, besides image/*.
SNIFFED = ("application/x-image", "application/octet-stream")
# Bytes outside strings: braces, quotes of names, spaces. A list of photos needs little of it, while a hostile body of
# empty lists would take fifty times its size once parsed.
MAX_JSON_STRUCTURE = 64 * 1024
MAX_JSON_DEPTH = 8
# Possessive, and also matches an unterminated string, so it takes linear time on any body.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)

# A photo of a request: a file's bytes, uint8 pixels (H, W, 3), a normalized float tensor (3, S, S), or its error.
Instance = bytes | np.ndarray | ImageError


@dataclass(frozen=True)
class ResponseFormat:
    """The media type of a response. ``verbose``: with the probabilities and logits of all classes."""

    media_type: ResponseType
    verbose: bool = False


@dataclass(frozen=True)
class Photos:
    """The photos of a request body. ``single``: respond with one prediction instead of a list."""

    instances: Sequence[Instance]
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


Outcome = Prediction | ImageError


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


def decode(body: bytes, content_type: str, settings: ServerSettings) -> Photos:
    """Split a request body into its photos, which are not decoded yet.

    Raises:
        MediaTypeError: the content type is not supported.
        TooLargeError: a photo or the number of photos exceeds its limit.
        RequestError: the body does not match its content type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON:
        return _check_count(_from_json(body, settings), settings)
    if kind in JSON_LINES:
        return _check_count(_from_json_lines(body, settings), settings)
    if kind == NPY:
        return _check_count(_from_npy(body, settings), settings)
    if kind.startswith("image/") or kind in SNIFFED:
        _check_image_size(len(body), settings)
        return Photos([body], single=True)
    raise MediaTypeError(
        f"can't read {content_type[:200]!r}; "
        f"supported are image/*, {', '.join(SNIFFED)}, {JSON}, {JSON_LINES[0]}, {NPY}"
    )


def _check_count(photos: Photos, settings: ServerSettings) -> Photos:
    count = len(photos.instances)
    if not count:
        raise RequestError("the body has no instances")
    if count > settings.max_instances:
        raise TooLargeError(f"{count} instances; at most {settings.max_instances} are allowed in one request")
    return photos


def _check_image_size(num_bytes: int, settings: ServerSettings) -> None:
    if num_bytes > settings.max_image:
        raise TooLargeError(f"an image of {num_bytes:,} bytes; at most {settings.max_image:,} are allowed")


def _from_json(body: bytes, settings: ServerSettings) -> Photos:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise RequestError('the JSON should be {"image": "<base64>"} or {"instances": [{"image": "<base64>"}, …]}')
    if "instances" not in document:
        return Photos([_base64_image(document, settings)], single=True)
    if not isinstance(document["instances"], list):
        raise RequestError('"instances" should be a list')
    return Photos(_instances(document["instances"], settings))


def _from_json_lines(body: bytes, settings: ServerSettings) -> Photos:
    lines = [line for line in body.split(b"\n", settings.max_instances + 1) if line.strip()]
    if len(lines) > settings.max_instances:
        raise TooLargeError(f"more than {settings.max_instances} lines, which is the limit for one request")
    return Photos(_instances([parse_json(line) for line in lines], settings))


def parse_json(body: bytes) -> Any:
    """Parse JSON from an untrusted client.

    Raises:
        RequestError: it is not JSON, or is nested deeper than any supported body.
        TooLargeError: it has more structure than any supported body.
    """
    structure = _JSON_STRING.sub(b'""', body)
    if len(structure) > MAX_JSON_STRUCTURE:
        raise TooLargeError(f"the JSON has {len(structure):,} bytes outside strings; at most {MAX_JSON_STRUCTURE:,}")
    if _depth(structure) > MAX_JSON_DEPTH:
        raise RequestError(f"the JSON is nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        return json.loads(body)
    except ValueError as error:
        # Among ValueErrors, only UnicodeDecodeError repeats the whole body in its message.
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
        raise RequestError(f"the body is not JSON: {reason}") from None


def _depth(structure: bytes) -> int:
    depth = deepest = 0
    for byte in structure:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _instances(instances: Iterable[Any], settings: ServerSettings) -> list[Instance]:
    return [_instance(instance, settings) for instance in instances]


def _instance(instance: object, settings: ServerSettings) -> Instance:
    # An unreadable photo gets its own error and the others are classified; one over the size limit fails the request.
    try:
        return _base64_image(instance, settings)
    except ImageError as error:
        return error


def _base64_image(instance: object, settings: ServerSettings) -> bytes:
    text = instance.get("image") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        raise RequestError('each instance should be {"image": "<base64>"}')
    if text.startswith("data:"):
        text = text.partition(",")[2]
    _check_image_size(len(text) * 3 // 4 - 2, settings)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image is not base64: {error}") from None


def _from_npy(body: bytes, settings: ServerSettings) -> Photos:
    array = _load_npy(body)
    _check_image_size(len(body) // max(len(array), 1) if array.ndim == 4 else len(body), settings)
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


# Response bodies


def encode(outcomes: Sequence[Outcome], response_format: ResponseFormat, *, single: bool, top_k: int) -> bytes:
    """Write predictions as a response body.

    Args:
        outcomes: one per photo of the request, in order.
        response_format: from ``negotiate``.
        single: write one prediction instead of a list.
        top_k: number of classes listed per photo, from the most probable.

    Raises:
        ImageError: no photo could be read, or one could not and the media type has no place for errors.
    """
    _raise_if_unanswerable(outcomes, response_format, single=single)
    if response_format.media_type == "text/csv":
        return _to_csv([one for one in outcomes if isinstance(one, Prediction)], top_k)
    if response_format.media_type == NPY:
        return _to_npy(np.stack([one.logits for one in outcomes if isinstance(one, Prediction)]))
    documents = [_document(one, response_format, top_k) for one in outcomes]
    if response_format.media_type == "application/jsonlines":
        return "".join(dump_json(one) + "\n" for one in documents).encode()
    return dump_json(documents[0] if single else {"predictions": documents}).encode()


def _raise_if_unanswerable(outcomes: Sequence[Outcome], response_format: ResponseFormat, *, single: bool) -> None:
    errors = [(index, one) for index, one in enumerate(outcomes) if isinstance(one, ImageError)]
    has_room = response_format.media_type in (JSON, "application/jsonlines")
    if errors and (len(errors) == len(outcomes) or not has_room):
        index, error = errors[0]
        raise error if single else ImageError(f"instance {index}: {error}")


def _document(outcome: Outcome, response_format: ResponseFormat, top_k: int) -> dict[str, Any]:
    if isinstance(outcome, ImageError):
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


def _to_csv(predictions: Sequence[Prediction], top_k: int) -> bytes:
    """One line per photo: label, class name and probability of each listed class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([value for place in _top(one, top_k) for value in place.values()] for one in predictions)
    return text.getvalue().encode()


def _to_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def error_document(error: UserError | Exception, message: str | None = None) -> dict[str, Any]:
    """``{"error": {"type", "message"}}``, the body of every error response."""
    return {"error": {"type": type(error).__name__, "message": str(error) if message is None else message}}


def dump_json(document: object) -> str:
    """Compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

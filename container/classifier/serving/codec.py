"""HTTP body ↔ images and predictions. Knows media types and limits, no web framework; nothing is ever unpickled."""

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
from classifier.serving.settings import FORMS, Form, Settings


@dataclass(frozen=True)
class Answer:
    """The form of an answer, and whether it says all that is known."""

    form: Form
    verbose: bool = False


@dataclass(frozen=True)
class _Range:
    kind: str
    quality: float
    verbose: bool


# A server hears the same few headers again and again.
@lru_cache(maxsize=64)
def choose(accept: str, default: str) -> Answer:
    """The form that the caller likes best. ``*/*``, or no header, leaves the choice to ``default``.

    Raises:
        AcceptError: none of the forms that the caller takes is written here.
    """
    for wanted in _ranges(accept):
        if wanted.kind == "*/*":
            fallback = _ranges(default)[0]
            return Answer(_first(fallback.kind) or FORMS[0], fallback.verbose)
        form = _first(wanted.kind)
        if form is not None:
            return Answer(form, wanted.verbose)
    raise AcceptError(f"can't answer as {accept[:200]!r}; can as {', '.join(FORMS)}")


def _first(kind: str) -> Form | None:
    prefix = kind.removesuffix("*")
    return next((form for form in FORMS if form == kind or (prefix != kind and form.startswith(prefix))), None)


def _ranges(accept: str) -> list[_Range]:
    """Best first; those of quality 0 are left out. An empty header takes anything."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [_Range("*/*", 1, verbose=False)]
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def _range(text: str) -> _Range:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    return _Range(kind, _number(quality), verbose="verbose" in parameters or "verbose=true" in parameters)


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


JSON = "application/json"
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl")
NPY = "application/x-npy"
SNIFFED = ("application/x-image", "application/octet-stream")
# All that is not inside strings: braces, names' quotes, spaces. A list of photos needs little of it, while a hostile
# body of empty lists would take fifty times its size once parsed.
MAX_JSON_STRUCTURE = 64 * 1024
MAX_JSON_DEPTH = 8
# Possessive, and also matching a string without an end: linear in the body, whatever it holds.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# One photo as it came: a file's bytes, uint8 pixels (H, W, 3), a normalised float tensor (3, H, W), or why it is none.
Item = bytes | np.ndarray | ImageError


@dataclass(frozen=True)
class Photos:
    """What a body asks to be predicted. ``single``: the answer is one prediction, not a list."""

    items: Sequence[Item]
    single: bool = False


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One photo's logits, float32 (num_classes,), and the classes that they are about."""

    labels: Sequence[str]
    class_names: Sequence[str]
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax, float64 (num_classes,)."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max())
        return powers / powers.sum()


Outcome = Prediction | ImageError


def decode(body: bytes, content_type: str, settings: Settings) -> Photos:
    """A body → its photos, still encoded.

    Raises:
        MediaTypeError: the content type is not read here.
        TooLargeError: a photo, or the number of them, is over its limit.
        RequestError: the body is not what its content type says.
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
        f"can't read {content_type[:200]!r}; can read image/*, {', '.join(SNIFFED)}, {JSON}, {JSON_LINES[0]}, {NPY}"
    )


def _check_count(photos: Photos, settings: Settings) -> Photos:
    if not photos.items:
        raise RequestError("the body holds no instances")
    if len(photos.items) > settings.max_instances:
        raise TooLargeError(f"{len(photos.items)} instances; at most {settings.max_instances} are taken in one request")
    return photos


def _check_image_size(num_bytes: int, settings: Settings) -> None:
    if num_bytes > settings.max_image:
        raise TooLargeError(f"an image of {num_bytes:,} bytes; at most {settings.max_image:,} are taken")


def _from_json(body: bytes, settings: Settings) -> Photos:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise RequestError('the JSON should be {"image": "<base64>"} or {"instances": [{"image": "<base64>"}, …]}')
    if "instances" not in document:
        return Photos([_base64_image(document, settings)], single=True)
    if not isinstance(document["instances"], list):
        raise RequestError('"instances" should be a list')
    return Photos(_instances(document["instances"], settings))


def _from_json_lines(body: bytes, settings: Settings) -> Photos:
    lines = [line for line in body.split(b"\n", settings.max_instances + 1) if line.strip()]
    if len(lines) > settings.max_instances:
        raise TooLargeError(f"more than {settings.max_instances} lines, the most that are taken in one request")
    return Photos(_instances([parse_json(line) for line in lines], settings))


def parse_json(body: bytes) -> Any:
    """
    Raises:
        RequestError: it is no JSON, or nests deeper than any body that is read here.
        TooLargeError: it has more structure than any body that is read here.
    """
    structure = _JSON_STRING.sub(b'""', body)
    if len(structure) > MAX_JSON_STRUCTURE:
        raise TooLargeError(f"the JSON has {len(structure):,} bytes outside strings; at most {MAX_JSON_STRUCTURE:,}")
    if _depth(structure) > MAX_JSON_DEPTH:
        raise RequestError(f"the JSON nests deeper than {MAX_JSON_DEPTH} levels")
    try:
        return json.loads(body)
    except ValueError as error:
        # Of its kinds, UnicodeDecodeError alone would repeat the whole body in its message.
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
        raise RequestError(f"the body is no JSON: {reason}") from None


def _depth(structure: bytes) -> int:
    depth = deepest = 0
    for byte in structure:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _instances(instances: Iterable[Any], settings: Settings) -> list[Item]:
    return [_instance(instance, settings) for instance in instances]


def _instance(instance: object, settings: Settings) -> Item:
    # One bad photo must not cost its neighbours their answers; one too large is refused with the request, as a body is.
    try:
        return _base64_image(instance, settings)
    except ImageError as error:
        return error


def _base64_image(instance: object, settings: Settings) -> bytes:
    text = instance.get("image") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        raise RequestError('each instance should be {"image": "<base64>"}')
    if text.startswith("data:"):
        text = text.partition(",")[2]
    _check_image_size(len(text) * 3 // 4 - 2, settings)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image is no base64: {error}") from None


def _from_npy(body: bytes, settings: Settings) -> Photos:
    array = _load_npy(body)
    _check_image_size(len(body) // max(len(array), 1) if array.ndim == 4 else len(body), settings)
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3:
        return _each(array)
    if array.dtype.kind == "f" and array.ndim in (3, 4) and array.shape[-3] == 3:
        return _each(array)
    raise RequestError(
        f"the array is {array.dtype} {array.shape}; "
        "it should be uint8 pixels (N, H, W, 3) or a float tensor (N, 3, H, W)"
    )


def _each(array: np.ndarray) -> Photos:
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
        # The header is a stranger's Python literal, and on bad ones numpy raises almost anything.
        raise RequestError(f"the body is no npy array: {str(error)[:200]}") from None
    if dtype.kind not in "uf" or dtype.hasobject:
        raise RequestError(f"an array of {str(dtype)[:50]!r} is not read; one of uint8 or of floats is")
    return _array_of(body, stream.tell(), shape, dtype, fortran)


def _array_of(body: bytes, start: int, shape: tuple[int, ...], dtype: np.dtype, fortran: bool) -> np.ndarray:
    # Its own product: numpy's would wrap around on a header that lies about its size.
    num_bytes = dtype.itemsize
    for size in shape:
        num_bytes *= size
    if any(size < 1 for size in shape) or num_bytes != len(body) - start:
        raise RequestError(f"the array's header says {shape} of {dtype}, but {len(body) - start:,} bytes follow it")
    return np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def encode(outcomes: Sequence[Outcome], answer: Answer, *, single: bool, top_k: int) -> bytes:
    """Predictions → a body.

    Raises:
        ImageError: a photo could not be read, and either no other could or the form has no room for errors.
    """
    _raise_if_unanswerable(outcomes, answer, single=single)
    if answer.form == "text/csv":
        return _to_csv([one for one in outcomes if isinstance(one, Prediction)], top_k)
    if answer.form == NPY:
        return to_npy(np.stack([one.logits for one in outcomes if isinstance(one, Prediction)]))
    documents = [_document(one, answer, top_k) for one in outcomes]
    if answer.form == "application/jsonlines":
        return "".join(dump(one) + "\n" for one in documents).encode()
    return dump(documents[0] if single else {"predictions": documents}).encode()


def _raise_if_unanswerable(outcomes: Sequence[Outcome], answer: Answer, *, single: bool) -> None:
    errors = [(index, one) for index, one in enumerate(outcomes) if isinstance(one, ImageError)]
    has_room = answer.form in (JSON, "application/jsonlines")
    if errors and (len(errors) == len(outcomes) or not has_room):
        index, error = errors[0]
        raise error if single else ImageError(f"instance {index}: {error}")


def _document(outcome: Outcome, answer: Answer, top_k: int) -> dict[str, Any]:
    if isinstance(outcome, ImageError):
        return error_document(outcome)
    ranked = _top(outcome, top_k)
    best = {"predicted_label" if name == "label" else name: value for name, value in ranked[0].items()}
    document = {**best, "predictions": ranked}
    if answer.verbose:
        document |= {
            "labels": list(outcome.labels),
            "class_names": list(outcome.class_names),
            "probabilities": outcome.probabilities.tolist(),
            "logits": outcome.logits.tolist(),
        }
    return document


def _top(prediction: Prediction, top_k: int) -> list[dict[str, Any]]:
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
    """A line a photo: label, class name, probability, and again for each further place."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([value for place in _top(one, top_k) for value in place.values()] for one in predictions)
    return text.getvalue().encode()


def to_npy(array: np.ndarray) -> bytes:
    """An array as a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def error_document(error: UserError | Exception, message: str | None = None) -> dict[str, Any]:
    """``{"error": {"type", "message"}}``, the body of every refusal."""
    return {"error": {"type": type(error).__name__, "message": str(error) if message is None else message}}


def dump(document: object) -> str:
    """Compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

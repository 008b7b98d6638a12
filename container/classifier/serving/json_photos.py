"""JSON from untrusted clients: photos in base64, and the small documents of the multi-model API.

A body is validated without being turned into objects: msgspec returns fields as views of the body, and only the base64
of a photo is decoded. Long work is done in slices, because each one holds the interpreter lock, for which the event
loop waits.
"""

import binascii
import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

import msgspec

from classifier.errors import ImageError, UserError
from classifier.serving.errors import RequestError, TooLargeError
from classifier.serving.settings import MIB, ServerSettings

# Quotes, brackets, braces, commas and white space in a document: enough for 4,096 photos with a few fields each, while
# a body that consists of them would take long to parse and many times its size once parsed.
MAX_STRUCTURE = 64 * 1024
_STRUCTURE = (b'"', b"[", b"{", b",", b" ", b"\n", b"\r", b"\t")
# Backslashes in a large document: PHP escapes one character of base64 in 64, and .NET two. Skipping one takes 15 ns,
# during which the interpreter lock is held.
MAX_ESCAPES_SHARE = 1 / 8
# Bytes of a document of the multi-model API, which has a name and a path.
MAX_DOCUMENT = 64 * 1024
# Bytes that a line of JSON Lines counts at least, which also limits the number of lines.
MIN_LINE = 256

# Bytes of a slice; resolving escapes needs eight times as many at once.
SLICE = 256 * 1024
# Bytes of a document that is parsed while no other such is.
LARGE = MIB
_NUMBER = b"0123456789.eE+-"
_LONGEST_ESCAPE = len(r"\u0000")
_LONGEST_URL_PREFIX = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Two large bodies parsed at once would hold the interpreter lock in turn, and the event loop would wait for both.
parsing_large = threading.Lock()


class _Instance(msgspec.Struct):
    """Absent fields are empty. Unknown fields are skipped, and of duplicate ones the last counts."""

    image: msgspec.Raw = msgspec.Raw()


class _Request(_Instance):
    instances: msgspec.Raw = msgspec.Raw()


_Parsed = TypeVar("_Parsed")
_INSTANCE = msgspec.json.Decoder(_Instance)
_REQUEST = msgspec.json.Decoder(_Request)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ANYTHING = msgspec.json.Decoder()


def read_request(body: bytes, settings: ServerSettings) -> bytes | list[msgspec.Raw]:
    """Read ``{"image": …}`` or ``{"instances": […]}``.

    Returns:
        The file of the one photo, or the instances for ``read_instance``.

    Raises:
        RequestError: it is not JSON, or has another shape.
        TooLargeError: it has more structure or escapes than any list of photos, or the one photo is too large.
        ImageError: the one photo is not base64.
    """
    _check_structure(body)
    request = _parse(_REQUEST, body)
    if request is None:
        raise RequestError('the JSON should be {"image": "<base64>"} or {"instances": [{"image": "<base64>"}, …]}')
    if not len(request.instances):
        return _read_image(request.image, settings)
    instances = _parse(_LIST, request.instances)
    if instances is None:
        raise RequestError('"instances" should be a list')
    return instances


def read_instance(instance: bytes | msgspec.Raw, settings: ServerSettings) -> bytes | UserError:
    """Return the file of the photo in ``{"image": …}``, or the reason why there is none."""
    try:
        parsed = _parse(_INSTANCE, instance)
        return _read_image(parsed.image if parsed else msgspec.Raw(), settings)
    except UserError as error:
        return error


def read_lines(body: bytes, settings: ServerSettings) -> Iterator[bytes | UserError]:
    """Read JSON Lines, one photo at a time, as ``read_instance`` does; blank lines are skipped.

    Raises:
        TooLargeError: it has more lines than any list of photos; raised before the first is read.
    """
    # In slices, as counting all of a large body would take too long.
    num_lines = sum(body.count(b"\n", start, start + SLICE) for start in range(0, len(body), SLICE))
    limit = settings.max_body // MIN_LINE
    if num_lines > limit:
        raise TooLargeError(f"{num_lines:,} lines; at most {limit:,} are allowed in one request")
    return (_read_line(line, settings) for line in io.BytesIO(body) if not line.isspace())


def parse_json(body: bytes) -> Any:
    """Parse a document of the multi-model API.

    Raises:
        RequestError: it is not JSON.
        TooLargeError: it is larger than any such document.
    """
    if len(body) > MAX_DOCUMENT:
        raise TooLargeError(f"a document of {len(body):,} bytes; at most {MAX_DOCUMENT:,} are allowed")
    return _parse(_ANYTHING, body)


def _read_line(line: bytes, settings: ServerSettings) -> bytes | UserError:
    try:
        _check_structure(line)
    except TooLargeError as error:
        return error
    return read_instance(line, settings)


def _check_structure(text: bytes) -> None:
    with parsing_large if len(text) > LARGE else nullcontext():
        _check_count(text)
        if len(text) > LARGE:
            _check_escapes(text)
            _check_numbers(text)


def _check_count(text: bytes) -> None:
    # find() compares 32 bytes at once and count() only one; with so few matches, the loop costs nothing.
    count = 0
    for character in _STRUCTURE:
        place = text.find(character)
        while place >= 0:
            count += 1
            if count > MAX_STRUCTURE:
                raise TooLargeError(
                    f"the JSON has more than {MAX_STRUCTURE:,} quotes, brackets, braces, commas and spaces"
                )
            place = text.find(character, place + 1)


def _check_escapes(text: bytes) -> None:
    count, limit = 0, len(text) * MAX_ESCAPES_SHARE
    for start in range(0, len(text), SLICE):
        count += text.count(b"\\", start, start + SLICE)
        if count > limit:
            raise TooLargeError("more than an eighth of the JSON consists of escapes")


def _check_numbers(text: bytes) -> None:
    # The parser looks at each digit with the interpreter lock held. Base64 has letters, at which strip() stops.
    for start in range(0, len(text) - SLICE, SLICE):
        if not text[start : start + SLICE].strip(_NUMBER):
            raise TooLargeError(f"the JSON has a number of more than {SLICE:,} digits")


def _parse(decoder: "msgspec.json.Decoder[_Parsed]", text: bytes | msgspec.Raw) -> _Parsed | None:
    """Parse a document whose structure was checked; None if it is JSON of another type than the decoder's.

    Raises:
        RequestError: it is not JSON, or nested too deeply.
    """
    source = memoryview(text)
    if source[:3] == _BYTE_ORDER_MARK:
        source = source[3:]
    try:
        with parsing_large if len(source) > LARGE else nullcontext():
            return decoder.decode(source)
    except msgspec.ValidationError:
        return None
    except UnicodeDecodeError:
        # Its message would repeat the whole body.
        raise RequestError("not JSON: not UTF-8") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    except RecursionError:
        raise RequestError("the JSON is nested too deeply") from None


def _read_image(value: msgspec.Raw, settings: ServerSettings) -> bytes:
    text = memoryview(value)
    if text[:1] != b'"':
        raise RequestError('each instance should be {"image": "<base64>"}')
    text = text[1:-1]
    start = bytes(text[:_LONGEST_URL_PREFIX])
    if start.startswith(b"data:"):
        text = text[start.find(b",") + 1 :]
    try:
        image = _decode_base64(text)
    except (binascii.Error, UnicodeError, msgspec.DecodeError) as error:
        reason = str(error) if isinstance(error, binascii.Error) else "Only base64 data is allowed"
        raise ImageError(f"the image is not base64: {reason}") from None
    check_image_size(len(image), settings)
    return image


def check_image_size(num_bytes: int, settings: ServerSettings) -> None:
    """Check the size of an image's file.

    Raises:
        TooLargeError: it exceeds the limit.
    """
    if num_bytes > settings.max_image:
        raise TooLargeError(f"an image of {num_bytes:,} bytes; at most {settings.max_image:,} are allowed")


def _decode_base64(text: memoryview) -> bytes:
    """Decode the inside of a JSON string in slices; padding is required."""
    decoded, length, rest = io.BytesIO(), 0, b""
    for part in _unescaped_slices(text):
        if decoded.tell() * 4 != length * 3:
            raise binascii.Error("Excess data after padding")
        characters = rest + part if rest else part
        whole = len(characters) & ~3
        decoded.write(binascii.a2b_base64(characters[:whole], strict_mode=True))
        rest = characters[whole:]
        length += whole
    if rest:
        raise binascii.Error("Incorrect padding")
    return decoded.getvalue()


def _unescaped_slices(text: memoryview) -> Iterator[bytes]:
    """Split the inside of a JSON string and resolve its escapes; PHP writes ``\\/``, and .NET ``\\u002B`` for ``+``."""
    start = 0
    while start < len(text):
        part = bytes(text[start : start + SLICE])
        if b"\\" not in part:
            start += len(part)
            yield part
            continue
        # The end of the slice may have split an escape.
        cut = part.rfind(b"\\", len(part) - _LONGEST_ESCAPE) if start + len(part) < len(text) else -1
        part = part[:cut] if cut > 0 else part
        start += len(part)
        yield msgspec.json.decode(b'"%b"' % part, type=str).encode("ascii")

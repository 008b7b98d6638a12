"""Decoding of untrusted image files into RGB, for image folders and request bodies. Imports no torch.

A JPEG is scaled while it is decoded: it is read at 1/2, 1/4 or 1/8 of its size if that still covers the requested size
(``draft`` in Pillow, DCT scaling in libjpeg-turbo). What limits an image is the memory that its decoding needs, which
the header tells: a small file can hold any number of pixels.
"""

import ctypes
import io
import logging
import math
import re
import threading
import warnings
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from classifier.errors import ImageError, ImageTooLargeError

# Photographic formats only: Pillow also reads formats that run programs (EPS) or are not used for photos.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MIB = 1024 * 1024
MAX_DECODED = 1024 * MIB
# An image that needs more is large: as many of them as there are cores could exceed the memory.
LARGE_DECODED = 256 * MIB

# Bytes of a pixel in memory; four in all other modes.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
RGB_BYTES = 4
_SIGNED = 2  # a sample format of TIFF
# Bytes of a pixel in a decoder's own buffers: the planes or canvases, and the frame that is copied into the image.
_BUFFER_BYTES = {"WEBP": 12, "AVIF": 8}
# A JPEG's blocks are all decoded, however small the result. This bounds the time more than the memory.
_JPEG_BYTES = 0.5
# Pixels of a strip, in which other modes are converted to RGB: a strip needs up to 16 bytes per pixel on the way.
_STRIP_PIXELS = 256 * 1024

# The transposition that makes an image upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_large_slot: AbstractContextManager[object] = threading.Lock()

Image.init()  # register all formats now; open() would register some of them lazily

# open_image() enforces its own limit; up to twice its value, Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None

# Damaged metadata, which the pixels do not depend on. Whoever sends a photo could otherwise fill the log.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _silence_libtiff() -> None:
    """Stop libtiff from writing to stderr what is wrong with a file; Pillow raises it as an exception as well."""
    with suppress(OSError, AttributeError):
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
        for path in set(re.findall(r"/\S*libtiff[^/\s]*\.so\S*", mapped)):
            ctypes.CDLL(path).TIFFSetErrorHandler(None)


_silence_libtiff()


def tolerate_truncated_images(tolerate: bool) -> None:
    """Fill the missing end of a truncated image with grey, or refuse it. Holds for the whole process, as in Pillow."""
    ImageFile.LOAD_TRUNCATED_IMAGES = tolerate


def is_image(data: bytes) -> bool:
    """Whether the first bytes are those of a supported format."""
    return any(accept is not None and accept(data[:16]) is True for _, accept in map(Image.OPEN.__getitem__, FORMATS))


@dataclass(frozen=True)
class OpenedImage:
    """An image of which only the header was read.

    Attributes:
        format: Pillow's name of its format.
        full_size: its width and height in the file, in pixels.
        num_bytes: memory that ``decode`` needs at its peak.
    """

    format: str
    full_size: tuple[int, int]
    num_bytes: int
    _image: Image.Image
    _max_decoded: int

    def decode(self) -> Image.Image:
        """Decode it, once, into upright 8-bit RGB; transparent pixels are blended with white.

        Raises:
            ImageError: the image is truncated or corrupt.
        """
        try:
            return self._decode()
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            # The bytes are untrusted, and on invalid ones Pillow's decoders raise almost any exception.
            raise ImageError(f"corrupt image: {error}") from None

    def _decode(self) -> Image.Image:
        self._image.load()
        turn = _turn(self._image)
        if turn is not None:
            # PNG may only tell after its pixels.
            check_decoded_size(self._image.size, _turned_bytes(self._image), self._max_decoded)
        rgb = _to_rgb(self._image)
        if rgb is not self._image:
            self._image.close()
        return rgb if turn is None else rgb.transpose(turn)


def open_image(data: bytes, *, cover: int | None = None, max_decoded: int = MAX_DECODED) -> OpenedImage:
    """Read an image's header.

    Args:
        data: the bytes of a whole file.
        cover: shorter side, in pixels, that the result must still cover; lets a JPEG be scaled down while decoding.
        max_decoded: limit on the memory for decoding it, in bytes, checked before any is allocated.

    Raises:
        ImageError: the image is of an unknown format, corrupt or too large.
    """
    try:
        width, height = _webp_canvas(data)
        check_decoded_size((width, height), width * height * (RGB_BYTES + _BUFFER_BYTES["WEBP"]), max_decoded)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        full_size = image.size
        if cover is not None:
            _draft(image, cover)
        num_bytes = _decoded_bytes(image, full_size)
        check_decoded_size(full_size, num_bytes, max_decoded)
        return OpenedImage(image.format or "", full_size, num_bytes, image, max_decoded)
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"not an image: {_describe_bytes(data)}") from None
    except Exception as error:
        # As in decoding.
        raise ImageError(f"corrupt image: {error}") from None


def decode(data: bytes, *, cover: int | None = None, max_decoded: int = MAX_DECODED) -> Image.Image:
    """Open and decode an image; see ``open_image`` and ``OpenedImage.decode``.

    Of the threads and processes that call this, one at a time decodes a large image; see ``share_large_slot``.

    Raises:
        ImageError: the image is of an unknown format, truncated, corrupt or too large.
    """
    opened = open_image(data, cover=cover, max_decoded=max_decoded)
    if opened.num_bytes <= LARGE_DECODED:
        return opened.decode()
    with _large_slot:
        return opened.decode()


def share_large_slot(slot: AbstractContextManager[object]) -> None:
    """Decode large images one at a time across processes: ``slot`` is a lock that each of them was passed."""
    global _large_slot  # noqa: PLW0603 (a limit of the machine, like Pillow's own settings)
    _large_slot = slot


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Read the canvas size of an extended WebP, which Pillow allocates on opening; (0, 0) for other files."""
    if data[:4] + data[8:16] != b"RIFFWEBPVP8X" or len(data) < 30:
        return 0, 0
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def check_decoded_size(size: tuple[int, int], num_bytes: int, max_decoded: int) -> None:
    """Check the memory that an image of a size, width and height in pixels, needs.

    Raises:
        ImageTooLargeError: it is more than ``max_decoded`` bytes.
    """
    if num_bytes > max_decoded:
        raise ImageTooLargeError(
            f"the image has {size[0]} × {size[1]} pixels, which take {math.ceil(num_bytes / MIB):,} MB to decode; "
            f"the limit is {max_decoded / MIB:,.4g} MB"
        )


def _decoded_bytes(image: Image.Image, full_size: tuple[int, int]) -> int:
    """Memory for the pixels in the file's mode and, one after another, the decoder's buffers and the copies in RGB."""
    pixels = image.width * image.height
    stored = pixels * _PIXEL_BYTES.get(image.mode, 4)
    converted = stored if image.mode == "RGB" else stored + pixels * RGB_BYTES
    # Asked for its orientation, Pillow would read a whole PNG.
    turned = _turned_bytes(image) if (image.format != "PNG" or "exif" in image.info) and _turn(image) else 0
    return max(stored + _buffer_bytes(image, full_size), converted, turned)


def _turned_bytes(image: Image.Image) -> int:
    return image.width * image.height * 2 * RGB_BYTES


def _buffer_bytes(image: Image.Image, full_size: tuple[int, int]) -> int:
    pixels = full_size[0] * full_size[1]
    if image.format in ("JPEG", "MPO"):
        coefficients = _jpeg_samples(image) * 2 if _has_several_scans(image) else 0
        return round(pixels * (_JPEG_BYTES + coefficients))
    if image.format == "TIFF" and image.info.get("compression", "raw") != "raw":
        return _tiff_buffer_bytes(image)
    return pixels * _BUFFER_BYTES.get(image.format or "", 0)


def _jpeg_samples(image: Image.Image) -> float:
    """Samples per pixel of a JPEG: 3, or 1.5 with the usual subsampling of colour."""
    areas = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]  # pyright: ignore[reportAttributeAccessIssue]
    return sum(areas) / max(areas)


def _has_several_scans(image: Image.Image) -> bool:
    """Whether libjpeg keeps the whole image's coefficients, of 16 bits, as it does if no scan has all of a block."""
    if image.format == "MPO" or image.info.get("progressive"):
        return True
    # The file was read up to the end of the first scan's header, which takes 8 bytes and 2 for each of its colors.
    stream = cast(JpegImagePlugin.JpegImageFile, image).fp
    assert stream is not None
    stream.seek(max(stream.tell() - 8 - 2 * len(image.layer), 0))  # pyright: ignore[reportAttributeAccessIssue]
    return stream.read(2) != b"\xff\xda"


def _tiff_buffer_bytes(image: Image.Image) -> int:
    """The strip or tile that libtiff decompresses at once."""
    tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    sample_bytes = math.ceil(max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) / 8)
    width = tags.get(TiffImagePlugin.TILEWIDTH, image.width)
    height = tags.get(
        TiffImagePlugin.TILELENGTH, min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
    )
    return width * height * max(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) * sample_bytes, RGB_BYTES)


def _draft(image: Image.Image, cover: int) -> None:
    scale = cover / min(image.size)
    if scale < 1:
        # draft() chooses the smallest scale whose result is at least this large on both sides.
        image.draft(None, (round(image.width * scale), round(image.height * scale)))  # pyright: ignore[reportArgumentType]


def _turn(image: Image.Image) -> Image.Transpose | None:
    # Pillow's exif_transpose would also rewrite the metadata, and fails if it is slightly corrupt.
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable metadata does not make the image unreadable
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "LAB":
        raise ImageError("the color space LAB is not supported: save the image as RGB")
    white = _white_level(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None
    rows = max(_STRIP_PIXELS // image.width, 1)
    if image.height <= rows:
        return _strip_to_rgb(image, white)
    rgb = Image.new("RGB", image.size, None)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_strip_to_rgb(strip, white), (0, top))
    return rgb


def _strip_to_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if white is not None:
        return _from_deep_gray(image, white)
    if image.has_transparency_data:
        # Blended with white, as a page would show it.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _white_level(image: Image.Image) -> float:
    """The value of white in grayscale of more than 8 bits.

    Up to 16 bits, the file's bit depth decides, so that a dark photo stays dark. Integers of 32 bits and floating-point
    numbers have no defined white level; it is taken from the values.
    """
    bits = 32 if image.mode == "F" else 16
    if image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        is_signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == _SIGNED
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0] - is_signed
    if bits <= 16:
        return 2.0**bits - 1
    highest = cast(float, image.getextrema()[1])
    if highest > 255:
        return 65535.0
    return 1.0 if image.mode == "F" and highest <= 1 else 255.0


def _from_deep_gray(image: Image.Image, white: float) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, np.float32), nan=0, posinf=white, neginf=0)
    return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8)).convert("RGB")


def _describe_bytes(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return f"{len(data)} zero bytes"
    return f"{len(data)} bytes that begin with {data[:8]!r}"

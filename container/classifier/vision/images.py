"""Decoding of untrusted image files into RGB, for image folders and request bodies. Imports no torch.

A JPEG is scaled while it is decoded: it is read at 1/2, 1/4 or 1/8 of its size if that still covers the requested size
(``draft`` in Pillow, DCT scaling in libjpeg-turbo).
"""

import io

import numpy as np
from PIL import ExifTags, Image, ImageFile

from classifier.errors import ImageError

# Photographic formats only: Pillow also reads formats that run programs (EPS) or are not used for photos.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# File name suffixes that training, data preparation and the prediction client take for images, by Pillow's name of the
# format; the first is the one to write.
EXTENSIONS_BY_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),  # several JPEGs in one file, opened as JPEG
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "AVIF": (".avif",),
}
EXTENSIONS = frozenset(extension for extensions in EXTENSIONS_BY_FORMAT.values() for extension in extensions)
MAX_PIXELS = 100_000_000

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

Image.init()  # register all formats now; open() would register some of them lazily

# decode() enforces its own limit; up to twice its value, Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def tolerate_truncated_images(tolerate: bool) -> None:
    """Fill the missing end of a truncated image with grey, or refuse it. Holds for the whole process, as in Pillow."""
    ImageFile.LOAD_TRUNCATED_IMAGES = tolerate


def is_image(data: bytes) -> bool:
    """Whether the first bytes are those of a supported format."""
    return any(accept is not None and accept(data[:16]) is True for _, accept in map(Image.OPEN.__getitem__, FORMATS))


def decode(data: bytes, *, cover: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image into upright 8-bit RGB; transparent pixels are blended with white.

    Args:
        data: the bytes of a whole file.
        cover: shorter side, in pixels, that the result must still cover; lets a JPEG be scaled down while decoding.
        max_pixels: limit on the size in the header, checked before memory is allocated.

    Raises:
        ImageError: the image is of an unknown format, truncated, corrupt or too large.
    """
    try:
        _check_size(_webp_canvas(data), max_pixels)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            if cover is not None:
                _draft(image, cover)
            image.load()
            return _to_rgb(_turn_upright(image))
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"not an image: {_describe_bytes(data)}") from None
    except Exception as error:
        # The bytes are untrusted, and on invalid ones Pillow's decoders raise almost any exception.
        raise ImageError(f"corrupt image: {error}") from None


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Read the canvas size of an extended WebP, which Pillow allocates on opening; (0, 0) for other files."""
    if data[:4] + data[8:16] != b"RIFFWEBPVP8X" or len(data) < 30:
        return 0, 0
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"the image has {width} × {height} pixels, more than the limit of {max_pixels:,}")


def _draft(image: Image.Image, cover: int) -> None:
    scale = cover / min(image.size)
    if scale < 1:
        # draft() chooses the smallest scale whose result is at least this large on both sides.
        image.draft(None, (round(image.width * scale), round(image.height * scale)))  # pyright: ignore[reportArgumentType]


def _turn_upright(image: Image.Image) -> Image.Image:
    # Pillow's exif_transpose would also rewrite the metadata, and fails if it is slightly corrupt.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable metadata does not make the image unreadable
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_gray(image)
    if image.mode == "LAB":
        raise ImageError("the color space LAB is not supported: save the image as RGB")
    if image.has_transparency_data:
        # Blended with white, as a page would show it.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep_gray(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit or floating-point grayscale to 8 bits by the range that the values use."""
    values = np.asarray(image).astype(np.float32)
    highest = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 255.0
    if values.max(initial=0) > highest:
        highest = 65535.0
    return Image.fromarray((values.clip(0, highest) * (255 / highest)).round().astype(np.uint8)).convert("RGB")


def _describe_bytes(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return f"{len(data)} zero bytes"
    return f"{len(data)} bytes that begin with {data[:8]!r}"

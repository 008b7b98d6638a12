"""Bytes to RGB, for the image folder and the request body alike.

One decoder, which scales while it decodes: a JPEG is read at 1/2, 1/4 or 1/8 of its size when that still covers what is
asked for (``draft`` in Pillow, DCT scaling in libjpeg-turbo).
"""

import io

import numpy as np
from PIL import ExifTags, Image, ImageFile

from classifier.errors import ImageError

# Photographic formats only: Pillow also knows formats that run programs (EPS) or hold no photos.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# Suffixes of file names, by Pillow's name of the format; the first is the one to write.
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

# What makes a photo upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.init()  # registers every format at once; open() would register some only when it meets them

# decode() bounds the pixels itself, by an error; Pillow's own limit would only warn below twice its value.
Image.MAX_IMAGE_PIXELS = None


def tolerate_truncated_images(tolerate: bool) -> None:
    """Fill the missing end of a truncated image with grey, or refuse it. Holds for the whole process, as in Pillow."""
    ImageFile.LOAD_TRUNCATED_IMAGES = tolerate


def decode(data: bytes, *, cover: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image of any kind into upright 8-bit RGB.

    Args:
        data: a whole file, of whatever name.
        cover: the shorter side, in pixels, that is enough; a JPEG is scaled down towards it while it is decoded.
        max_pixels: refuse an image whose header claims more, before any memory is taken for it.

    Raises:
        ImageError: not an image of a known format, truncated, corrupt, or too large.
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
        # The bytes are a stranger's, and on bad ones Pillow's decoders raise almost anything.
        raise ImageError(f"corrupt image: {error}") from None


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """The size in an extended WebP's header, whose canvas Pillow takes memory for on opening; (0, 0) of others."""
    if data[:4] + data[8:16] != b"RIFFWEBPVP8X" or len(data) < 30:
        return 0, 0
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"the image claims {width} × {height} pixels; at most {max_pixels:,} are taken")


def _draft(image: Image.Image, cover: int) -> None:
    scale = cover / min(image.size)
    if scale < 1:
        # draft() picks the smallest scale whose result is at least this large on both sides.
        image.draft(None, (round(image.width * scale), round(image.height * scale)))  # pyright: ignore[reportArgumentType]


def _turn_upright(image: Image.Image) -> Image.Image:
    # Pillow's exif_transpose would also write the metadata anew, and fail where it is a little broken.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata that can't be read costs no photo
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_grey(image)
    if image.mode == "LAB":
        raise ImageError("the colour space LAB is not read: save the image as RGB")
    if image.has_transparency_data:
        # What is see-through shows as white, as on a page.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point greyscale → 8 bits, by the range that the values use."""
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

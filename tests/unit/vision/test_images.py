"""Decoding of images: formats, color modes, orientation, scaling, limits, invalid files."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from classifier.errors import ImageError
from classifier.vision.images import EXTENSIONS, FORMATS, MAX_PIXELS, decode, tolerate_truncated_images
from support.drawing import draw_photo, encode

SIZE = (64, 48)
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def restore_truncation_policy() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    yield
    tolerate_truncated_images(before)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two images of the same size, in gray levels."""
    assert first.size == second.size
    return float(np.abs(pixels(first) - pixels(second)).mean())


def check_rgb(image: Image.Image, size: tuple[int, int] = SIZE) -> None:
    assert image.mode == "RGB"
    assert image.size == size


LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})]
TIFF_COMPRESSIONS = [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS, *TIFF_COMPRESSIONS])
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, object]) -> None:
    original = draw_photo(*SIZE)
    decoded = decode(encode(original, kind, **options))
    check_rgb(decoded)
    assert difference(decoded, original) == 0


LOSSY = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"subsampling": 0}),
    ("JPEG", {"optimize": True, "restart_marker_blocks": 1}),
    ("WEBP", {"quality": 90}),
    ("AVIF", {"quality": 90}),
    ("GIF", {}),
]


@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_lossy_formats_are_close(kind: str, options: dict[str, object]) -> None:
    original = draw_photo(*SIZE)
    decoded = decode(encode(original, kind, **options))
    check_rgb(decoded)
    assert difference(decoded, original) < 6


GRAY = draw_photo(*SIZE).convert("L")


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"), [("PNG", {}, 0), ("JPEG", {}, 3), ("TIFF", {}, 0), ("PPM", {}, 0), ("BMP", {}, 0)]
)
def test_gray_image_becomes_gray_rgb(kind: str, options: dict[str, object], tolerance: float) -> None:
    decoded = decode(encode(GRAY, kind, **options))
    check_rgb(decoded)
    assert difference(decoded, GRAY.convert("RGB")) <= tolerance
    assert np.ptp(pixels(decoded), axis=2).max() == 0


def test_16_bit_gray_is_scaled_to_8_bits() -> None:
    deep = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        decoded = decode(encode(deep, kind))
        check_rgb(decoded)
        assert difference(decoded, GRAY.convert("RGB")) == 0


@pytest.mark.parametrize(("kind", "scale"), [(np.int32, 1), (np.int32, 257), (np.float32, 1), (np.float32, 1 / 255)])
def test_high_bit_depth_gray_is_scaled_by_the_range_it_uses(kind: type, scale: float) -> None:
    levels = (np.asarray(GRAY).astype(float) * scale).astype(kind)
    decoded = decode(encode(Image.fromarray(levels), "TIFF"))
    check_rgb(decoded)
    assert difference(decoded, GRAY.convert("RGB")) <= 1


def test_non_finite_gray_is_decoded_or_an_image_error() -> None:
    levels = np.asarray(GRAY).astype(np.float32)
    levels[:4, :4] = np.nan
    levels[4:8, :4] = np.inf
    with suppress(ImageError):
        check_rgb(decode(encode(Image.fromarray(levels), "TIFF")))


def test_1_bit_image_is_black_and_white() -> None:
    bitmap = GRAY.convert("1")
    for kind in ("PNG", "TIFF", "PPM"):
        decoded = decode(encode(bitmap, kind))
        check_rgb(decoded)
        assert difference(decoded, bitmap.convert("RGB")) == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_is_applied(kind: str) -> None:
    palette = draw_photo(*SIZE).quantize(64)
    decoded = decode(encode(palette, kind))
    check_rgb(decoded)
    assert difference(decoded, palette.convert("RGB")) == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_color_becomes_white(kind: str) -> None:
    palette = draw_photo(*SIZE).quantize(16)
    index = int(np.asarray(palette)[0, 0])
    decoded = decode(encode(palette, kind, transparency=index))
    expected = pixels(palette.convert("RGB"))
    expected[np.asarray(palette) == index] = 255
    check_rgb(decoded)
    assert np.array_equal(pixels(decoded), expected)


def test_palette_with_alpha_values_is_blended_with_white() -> None:
    palette = draw_photo(*SIZE).quantize(16)
    decoded = decode(encode(palette, "PNG", transparency=bytes(range(0, 256, 16))))
    alpha = (np.asarray(palette) * 16)[..., None] / 255
    expected = pixels(palette.convert("RGB")) * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(decoded) - expected).max() <= 1.5


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_blended_with_white(kind: str, options: dict[str, object], mode: str) -> None:
    image = draw_photo(*SIZE).convert(mode)
    opaque = pixels(image.convert("RGB"))
    alpha = np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1))
    image.putalpha(Image.fromarray(alpha))
    decoded = decode(encode(image, kind, **options))
    check_rgb(decoded)
    share = alpha[..., None] / 255
    assert np.abs(pixels(decoded) - (opaque * share + 255 * (1 - share))).max() <= 1.5


def test_cmyk_jpeg_is_converted_to_rgb() -> None:
    original = draw_photo(*SIZE)
    decoded = decode(encode(original.convert("CMYK"), "JPEG", quality=95))
    check_rgb(decoded)
    assert difference(decoded, original) < 6


def test_lab_image_is_an_image_error() -> None:
    lab = Image.new("LAB", SIZE)
    with pytest.raises(ImageError, match="LAB is not supported: save the image as RGB"):
        decode(encode(lab, "TIFF"))


TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # stored so that a quarter turn clockwise makes it upright
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("cover", [None, 20])
@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 3), ("PNG", 0), ("WEBP", 4), ("TIFF", 0)])
@pytest.mark.parametrize("orientation", TURNED)
def test_image_is_turned_upright_by_its_exif_orientation(
    orientation: int, kind: str, tolerance: float, cover: int | None
) -> None:
    upright = draw_photo(128, 96)
    method = TURNED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    decoded = decode(encode(stored, kind, exif=exif), cover=cover)
    assert difference(decoded, upright.resize(decoded.size, Image.Resampling.BOX)) <= tolerance


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo = draw_photo(*SIZE)
    assert difference(decode(encode(photo, exif=exif)), decode(encode(photo))) == 0


def rich_exif() -> bytes:
    """EXIF metadata of a camera: numbers, fractions, text, a maker note, GPS coordinates."""
    exif = Image.Exif()
    exif.update({ExifTags.Base.Make: "Maker", ExifTags.Base.XResolution: 72.0, ExifTags.Base.Orientation: 1})
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ExposureTime: 0.01, ExifTags.Base.MakerNote: b"note" * 5})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return exif.tobytes()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about corrupt metadata
@given(st.lists(st.tuples(st.integers(6, len(rich_exif()) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_corrupt_metadata_does_not_make_an_image_unreadable(changes: list[tuple[int, int]]) -> None:
    exif = bytearray(rich_exif())
    for place, value in changes:
        exif[place] = value
    assert sorted(decode(encode(draw_photo(*SIZE), exif=bytes(exif))).size) == sorted(SIZE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_is_decoded(kind: str) -> None:
    first, *others = [Image.new("RGB", SIZE, colour) for colour in ("red", "green", "blue")]
    decoded = decode(encode(first, kind, save_all=True, append_images=others))
    check_rgb(decoded)
    assert difference(decoded, first) < 3


def test_first_image_of_an_mpo_is_decoded() -> None:
    first, second = Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")
    decoded = decode(encode(first, "MPO", save_all=True, append_images=[second]))
    assert difference(decoded, first) < 3


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "SGI"])
def test_other_formats_are_image_errors(kind: str) -> None:
    with pytest.raises(ImageError, match=r"^not an image: \d+ bytes that begin with "):
        decode(encode(draw_photo(*SIZE), kind))


def test_every_format_has_an_extension() -> None:
    known = Image.registered_extensions()
    assert {known[extension] for extension in EXTENSIONS if extension in known} >= set(FORMATS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image: the file is empty"),
        (bytes(1000), "not an image: 1000 zero bytes"),
        (b"<html>not found</html>", "not an image: 22 bytes that begin with b'<html>no'"),
        (b"\xff\xd8\xff", "not an image: 3 bytes that begin with b'\\xff\\xd8\\xff'"),
        (b"\x89PNG\r\n\x1a\n", "not an image: 8 bytes that begin with b'\\x89PNG\\r\\n\\x1a\\n'"),
    ],
)
def test_error_describes_bytes_that_are_not_an_image(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value) == reason


def noisy_photo(size: tuple[int, int] = (96, 72)) -> Image.Image:
    noise = np.random.default_rng(0).integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray((pixels(draw_photo(*size)) + noise).clip(0, 255).astype(np.uint8))


KINDS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
]


@pytest.mark.parametrize("cover", [None, 1])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_truncated_image_is_an_image_error_by_default(kind: str, options: dict[str, object], cover: int | None) -> None:
    data = encode(noisy_photo(), kind, **options)
    tolerate_truncated_images(False)
    decode(data, cover=cover)
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2], cover=cover)


@pytest.mark.parametrize("cover", [None, 1])
@pytest.mark.parametrize(("kind", "options"), KINDS[:3])
def test_truncated_image_is_filled_if_tolerated(kind: str, options: dict[str, object], cover: int | None) -> None:
    photo = noisy_photo()
    data = encode(photo, kind, **options)
    tolerate_truncated_images(True)
    decoded = decode(data[: len(data) * 2 // 3], cover=cover)
    whole = decode(data, cover=cover)
    assert decoded.size == whole.size
    if not options and cover is None:
        top = (0, 0, photo.width, photo.height // 3)
        assert difference(decoded.crop(top), whole.crop(top)) < 1


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def bmp_header(width: int, height: int) -> bytes:
    data = bytearray(encode(Image.new("RGB", (1, 1)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def gif_header(width: int, height: int) -> bytes:
    data = bytearray(encode(Image.new("P", (1, 1)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_header(width: int, height: int) -> bytes:
    data = bytearray(encode(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "WEBP"))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("bomb", "claim"),
    [
        (png_header(60_000, 60_000), "60000 × 60000"),
        (bmp_header(60_000, 60_000), "60000 × 60000"),
        (gif_header(60_000, 60_000), "60000 × 60000"),
        (webp_header(16_000, 16_000), "16000 × 16000"),
        (b"P6 100000 100000 255\n", "100000 × 100000"),
    ],
    ids=["PNG", "BMP", "GIF", "WebP", "PPM"],
)
def test_decompression_bomb_is_an_image_error(bomb: bytes, claim: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(bomb)
    assert str(caught.value) == f"the image has {claim} pixels, more than the limit of {MAX_PIXELS:,}"


def test_canvas_of_a_webp_is_checked_before_pillow_allocates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(ImageError, match="16000 × 16000 pixels"):
        decode(webp_header(16_000, 16_000))


def test_pixel_limit_is_inclusive() -> None:
    data = encode(draw_photo(*SIZE), "PNG")
    check_rgb(decode(data, max_pixels=SIZE[0] * SIZE[1]))
    with pytest.raises(ImageError, match="has 64 × 48 pixels, more than the limit of 3,071"):
        decode(data, max_pixels=SIZE[0] * SIZE[1] - 1)


def test_pixel_limit_applies_to_a_jpeg_before_scaling(photo: bytes) -> None:
    with pytest.raises(ImageError, match="has 320 × 240 pixels"):
        decode(photo, cover=1, max_pixels=10_000)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (1000, 60), (333, 251)])
@pytest.mark.parametrize("cover", [1, 17, 31, 59, 120, 239, 240, 1000])
def test_scaled_jpeg_covers_the_requested_size(size: tuple[int, int], cover: int) -> None:
    full = draw_photo(*size)
    scaled = decode(encode(full), cover=cover)
    assert min(scaled.size) >= min(cover, *size)
    assert scaled.size == size or min(scaled.size) < 2 * cover or min(scaled.size) <= -(-min(size) // 8)
    assert scaled.width / scaled.height == pytest.approx(size[0] / size[1], rel=0.15)


@pytest.mark.parametrize("cover", [30, 60, 120])
def test_scaled_jpeg_is_close_to_a_full_decode(cover: int, photo: bytes) -> None:
    scaled, full = decode(photo, cover=cover), decode(photo)
    assert scaled.size != full.size
    assert difference(scaled, full.resize(scaled.size, Image.Resampling.BOX)) < 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_not_scaled(kind: str) -> None:
    assert decode(encode(draw_photo(*SIZE), kind), cover=4).size == SIZE


FILES = {
    "JPEG": encode(noisy_photo((40, 30))),
    "progressive": encode(noisy_photo((40, 30)), "JPEG", progressive=True),
    "PNG": encode(noisy_photo((20, 16)), "PNG"),
    "WEBP": encode(noisy_photo((40, 30)), "WEBP"),
    "GIF": encode(noisy_photo((20, 16)), "GIF"),
    "TIFF": encode(noisy_photo((20, 16)), "TIFF", compression="tiff_lzw"),
    "BMP": encode(noisy_photo((20, 16)), "BMP"),
    "PPM": encode(noisy_photo((20, 16)), "PPM"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FILES)
@given(draw=st.data())
def test_corrupted_file_is_an_image_or_an_image_error(kind: str, draw: st.DataObject) -> None:
    data = bytearray(FILES[kind])
    changes = st.tuples(st.integers(0, len(data) - 1) | st.integers(0, 60), st.integers(0, 255))
    for place, value in draw.draw(st.lists(changes, min_size=1, max_size=8)):
        data[place] = value
    end = draw.draw(st.just(len(data)) | st.integers(0, len(data)))
    tolerate_truncated_images(draw.draw(st.booleans()))
    with suppress(ImageError):
        assert decode(bytes(data[:end]), cover=draw.draw(st.sampled_from([None, 8])), max_pixels=10**6).mode == "RGB"


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0", b"BM"]),
    st.binary(),
)
def test_random_bytes_are_an_image_or_an_image_error(magic: bytes, data: bytes) -> None:
    with suppress(ImageError):
        decode(magic + data, max_pixels=10**6)


def test_real_photos_decode_alike_in_full_and_scaled(clothing_photos: Path) -> None:
    photos = sorted((clothing_photos / "test" / "hat").iterdir())[:4]
    assert photos
    for path in photos:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as header:
            assert sorted(decode(data).size) == sorted(header.size)
        scaled = decode(data, cover=64)
        assert difference(scaled, decode(data).resize(scaled.size, Image.Resampling.BOX)) < 4

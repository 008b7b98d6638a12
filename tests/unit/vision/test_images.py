"""Decoding of images: formats, color modes, orientation, scaling, limits, invalid files."""

import io
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from classifier.contract.channels import EXTENSIONS
from classifier.errors import ImageError
from classifier.vision.images import FORMATS, MIB, decode, is_image, open_image, tolerate_truncated_images
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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("scale", [257, 100, 1])
def test_16_bit_gray_is_scaled_by_its_depth(kind: str, scale: int) -> None:
    levels = np.asarray(GRAY).astype(np.uint16) * scale
    decoded = decode(encode(Image.fromarray(levels), kind))
    check_rgb(decoded)
    assert np.array_equal(pixels(decoded)[..., 0], np.rint(levels / 257))


def test_16_bit_ppm_is_scaled_by_its_depth() -> None:
    levels = np.asarray(GRAY).astype(">u2")
    decoded = decode(b"P5 %d %d 65535\n" % SIZE + levels.tobytes())
    check_rgb(decoded)
    assert pixels(decoded).max() <= 1


@pytest.mark.parametrize(
    ("bits", "sample_format", "order", "white"), [(12, 1, "<", 4095), (16, 2, ">", 32767)], ids=["12 bits", "signed"]
)
def test_declared_depth_of_a_tiff_decides(bits: int, sample_format: int, order: str, white: int) -> None:
    levels = np.array([[0, white // 2], [white // 4, white]])
    decoded = decode(gray_tiff(levels, bits, sample_format, order))
    np.testing.assert_allclose(pixels(decoded)[..., 0], levels * (255 / white), atol=0.5)


def gray_tiff(levels: np.ndarray, bits: int, sample_format: int, order: str) -> bytes:
    """An uncompressed TIFF of one strip, its rows packed from the highest bit and beginning on a whole byte."""
    rows = ["".join(format(int(value), f"0{bits}b") for value in row) for row in levels]
    data = b"".join(int(row.ljust(-len(row) % 8 + len(row), "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in rows)
    height, width = levels.shape
    # Width, height, bits, compression, photometric, offset, samples, rows of a strip, its bytes, sample format.
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    fields[339] = sample_format
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in fields.items())
    padding = bytes(len(data) % 2)
    header = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(data) + len(padding))
    return header + data + padding + struct.pack(f"{order}H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "scale"), [(np.int32, 1), (np.int32, 257), (np.float32, 1), (np.float32, 1 / 255)])
def test_gray_without_a_white_of_its_own_is_scaled_by_the_range_it_uses(kind: type, scale: float) -> None:
    levels = (np.asarray(GRAY).astype(float) * scale).astype(kind)
    decoded = decode(encode(Image.fromarray(levels), "TIFF"))
    check_rgb(decoded)
    assert difference(decoded, GRAY.convert("RGB")) <= 1


def test_non_finite_gray_is_black_or_white() -> None:
    levels = np.asarray(GRAY).astype(np.float32)
    levels[:4, :4] = np.nan
    levels[4:8, :4] = np.inf
    decoded = decode(encode(Image.fromarray(levels), "TIFF"))
    check_rgb(decoded)
    assert (pixels(decoded)[:4, :4] == 0).all()
    assert (pixels(decoded)[4:8, :4] == 255).all()


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
    assert str(caught.value).startswith(f"the image has {claim} pixels, which take ")


def test_canvas_of_a_webp_is_checked_before_pillow_allocates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(ImageError, match="16000 × 16000 pixels"):
        decode(webp_header(16_000, 16_000))


def test_limit_of_decoded_bytes_is_inclusive() -> None:
    data = encode(draw_photo(*SIZE), "PNG")
    needed = SIZE[0] * SIZE[1] * 4
    check_rgb(decode(data, max_decoded=needed))
    with pytest.raises(ImageError, match=r"64 × 48 pixels, which take 1 MB to decode; the limit is 0\.01172 MB"):
        decode(data, max_decoded=needed - 1)


def test_small_file_of_many_pixels_is_refused_by_its_decoded_size() -> None:
    floats = encode(Image.new("F", (4000, 4000)), "TIFF", compression="tiff_adobe_deflate")
    assert len(floats) < 200_000
    with pytest.raises(ImageError, match="4000 × 4000 pixels, which take 123 MB to decode; the limit is 100 MB"):
        decode(floats, max_decoded=100 * MIB)


def test_limit_applies_to_a_jpeg_at_the_scale_that_is_decoded() -> None:
    photo = encode(draw_photo(1600, 1200))
    assert decode(photo, cover=150, max_decoded=2 * MIB).size == (200, 150)
    with pytest.raises(ImageError, match="1600 × 1200 pixels, which take 9 MB"):
        decode(photo, max_decoded=2 * MIB)


def test_jpeg_of_several_scans_counts_the_coefficients_that_libjpeg_keeps() -> None:
    photo = draw_photo(1600, 1200)
    baseline, progressive = (encode(photo, progressive=progressive) for progressive in (False, True))
    start = baseline.index(b"\xff\xda")
    one_color_per_scan = baseline[:start] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + baseline[start + 14 :]
    scaled, *others = (open_image(one, cover=150).num_bytes for one in (baseline, progressive, one_color_per_scan))
    assert [other - scaled for other in others] == [1600 * 1200 * 3] * 2


@pytest.mark.parametrize("end", [False, True], ids=["before the pixels", "after the pixels"])
def test_upright_copy_counts(end: bool) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = encode(draw_photo(*SIZE), "PNG", exif=exif)
    if end:
        start = turned.index(b"eXIf") - 4
        length = 12 + int.from_bytes(turned[start : start + 4], "big")
        turned = turned[:start] + turned[start + length : -12] + turned[start : start + length] + turned[-12:]
    needed = SIZE[0] * SIZE[1] * 8
    check_rgb(decode(turned, max_decoded=needed), (SIZE[1], SIZE[0]))
    with pytest.raises(ImageError, match="64 × 48 pixels, which take"):
        decode(turned, max_decoded=needed - 1)


def test_large_images_are_decoded_one_at_a_time_and_the_others_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.vision.images.LARGE_DECODED", 100_000)
    slot = threading.Lock()
    monkeypatch.setattr("classifier.vision.images._large_slot", slot)
    small, large = (encode(draw_photo(*size), "PNG") for size in (SIZE, (320, 240)))
    with ThreadPoolExecutor(1) as executor:
        with slot:
            decode(small)
            waiting = executor.submit(decode, large)
            assert not wait([waiting], timeout=0.5).done
        check_rgb(waiting.result(), (320, 240))


MODES = {
    "JPEG": ["RGB", "CMYK"],
    "PNG": ["RGB", "RGBA", "P", "I;16"],
    "TIFF": ["RGB", "LA", "F"],
    "WEBP": ["RGBA"],
    "AVIF": ["RGB"],
    "GIF": ["P"],
}
# Decodes each file, and prints the growth of the process's peak memory and what was predicted, in bytes.
MEASURE_PEAK = """
import io, sys
from pathlib import Path
from PIL import Image
from classifier.vision.images import decode, open_image

def memory(field):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(field)) * 1024

for path in sys.argv[1:]:
    data = Path(path).read_bytes()
    for cover in (None, 128):
        predicted = open_image(data, cover=cover).num_bytes
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        decode(data, cover=cover)
        print(Path(path).name, cover, memory("VmHWM") - before, predicted)
"""


def test_peak_memory_of_decoding_is_as_predicted(tmp_path: Path) -> None:
    paths = []
    for kind, modes in MODES.items():
        for mode in modes:
            paths.append(tmp_path / f"{kind}-{mode}")
            options = {"TIFF": {"compression": "tiff_adobe_deflate"}, "AVIF": {"speed": 10}, "WEBP": {"method": 0}}
            image = Image.linear_gradient("L").resize((1600, 1200))
            paths[-1].write_bytes(encode(image.convert(mode), kind, **options.get(kind, {})))
    paths.append(tmp_path / "JPEG-progressive")
    paths[-1].write_bytes(encode(draw_photo(1600, 1200), progressive=True))
    output = subprocess.run(
        [sys.executable, "-c", MEASURE_PEAK, *map(str, paths)], check=True, capture_output=True, text=True
    ).stdout
    for line in output.splitlines():
        _, _, grown, predicted = line.split()
        # Rows and strips on the way are a few MB, whatever the size.
        assert int(grown) <= int(predicted) * 1.1 + 4 * MIB, line


def test_damaged_metadata_is_neither_an_error_nor_reported() -> None:
    data = bytearray(encode(draw_photo(*SIZE), exif=rich_exif()))
    place = data.index(b"Exif") + 16  # the first tag: make its value longer than the file
    data[place + 4 : place + 8] = b"\x00\xff\xff\x00"
    with pytest.warns(UserWarning, match="Tag data larger than file"), Image.open(io.BytesIO(data)) as image:
        image.getexif()
    script = "import sys; from classifier.vision.images import decode; decode(sys.stdin.buffer.read())"
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], input=data, check=True, capture_output=True)
    assert result.stderr == b""


def test_damaged_tiff_is_an_image_error_and_nothing_else_is_reported() -> None:
    data = bytearray(encode(noisy_photo(), "TIFF", compression="tiff_lzw"))
    data[200:400] = b"\xff" * 200
    script = "import sys; from classifier.vision.images import decode; decode(sys.stdin.buffer.read())"
    result = subprocess.run([sys.executable, "-c", script], input=data, check=False, capture_output=True)
    lines = result.stderr.decode().splitlines()
    assert lines[0].startswith("Traceback"), lines[:3]
    assert lines[-1].startswith("classifier.errors.ImageError: corrupt image: ")


def test_images_are_told_by_their_first_bytes() -> None:
    assert all(is_image(encode(draw_photo(*SIZE), kind)[:20]) for kind in FORMATS)
    assert not any(map(is_image, (b"", b"image=abc", b'{"image": ""}', b"%PDF-1.7", bytes(20))))


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
        assert decode(bytes(data[:end]), cover=draw.draw(st.sampled_from([None, 8])), max_decoded=10**7).mode == "RGB"


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0", b"BM"]),
    st.binary(),
)
def test_random_bytes_are_an_image_or_an_image_error(magic: bytes, data: bytes) -> None:
    with suppress(ImageError):
        decode(magic + data, max_decoded=10**7)


def test_real_photos_decode_alike_in_full_and_scaled(clothing_photos: Path) -> None:
    photos = sorted((clothing_photos / "test" / "hat").iterdir())[:4]
    assert photos
    for path in photos:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as header:
            assert sorted(decode(data).size) == sorted(header.size)
        scaled = decode(data, cover=64)
        assert difference(scaled, decode(data).resize(scaled.size, Image.Resampling.BOX)) < 4

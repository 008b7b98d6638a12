"""Inspection of one photo: defects are reported, good photos are staged byte for byte."""

import multiprocessing
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dataset.inspection import Inspection, InspectionOptions, InspectionTask, inspect, open_pool
from support.drawing import draw_photo, encode

DEFAULTS = InspectionOptions(min_side=16, longer_side=None, repair_truncated=False, keep_tiny=False, link=False)
Run = Callable[..., Inspection]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes a file, inspects it, and stages it as ``staged``."""

    def run(data: bytes, name: str = "photo.jpg", options: InspectionOptions = DEFAULTS) -> Inspection:
        (tmp_path / name).write_bytes(data)
        return inspect(InspectionTask(str(tmp_path / name), str(tmp_path / "staged")), options)

    return run


def test_a_good_photo_is_staged_byte_for_byte(run: Run, photo: bytes, tmp_path: Path) -> None:
    inspection = run(photo)
    assert (inspection.defect, inspection.width, inspection.height, inspection.size) == ("", 320, 240, len(photo))
    assert (tmp_path / "staged").read_bytes() == photo


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_photo_without_its_end_is_truncated_or_corrupt(run: Run, format: str, tmp_path: Path) -> None:
    data = encode(draw_photo(), format)
    inspection = run(data[: len(data) * 2 // 3], f"photo.{format.lower()}")
    assert inspection.defect in (
        {"truncated"} if format in ("JPEG", "PNG", "GIF", "WEBP") else {"truncated", "corrupt", "not-image"}
    )
    assert not (tmp_path / "staged").exists()


def test_a_png_with_a_damaged_middle_is_corrupt(run: Run) -> None:
    data = bytearray(encode(draw_photo(), "PNG"))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    assert run(bytes(data), "photo.png").defect == "corrupt"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image: the file is empty"),
        (bytes(1000), "not an image: 1000 zero bytes"),
        (b"<html>404</html>", "not an image: 16 bytes that begin with b'<html>40'"),
    ],
)
def test_a_file_that_is_no_image_is_reported(run: Run, data: bytes, reason: str) -> None:
    inspection = run(data)
    assert (inspection.defect, inspection.reason) == ("not-image", reason)


def gray_png(width: int, height: int) -> bytes:
    return encode(Image.new("L", (width, height)), "PNG", compress_level=1)


def test_a_photo_that_takes_too_much_memory_is_too_large(run: Run) -> None:
    data = bytearray(gray_png(1, 1))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    inspection = run(bytes(data), "photo.png")
    assert (inspection.digest, inspection.defect) == (None, "too-large")
    assert inspection.reason.startswith("the image has 60000 × 60000 pixels, which take 17,167 MB to decode")


def test_a_photo_is_too_large_only_at_the_scale_that_is_decoded(run: Run) -> None:
    """A camera of 218 megapixels."""
    data = encode(Image.new("L", (16_000, 13_600)), quality=10)
    assert run(data).defect == ""
    assert run(data, "other.jpg", DEFAULTS._replace(longer_side=15_000)).defect == "too-large"


def test_large_photos_are_decoded_one_at_a_time_in_all_processes() -> None:
    slot = multiprocessing.get_context("spawn").Lock()
    acquire = "__import__('classifier.vision.images', fromlist=['*'])._large_slot.acquire(block=False)"
    with open_pool(2, slot) as pool, slot:
        # What decode() holds in threads of one process is held here, and can't be acquired there.
        assert [pool.submit(eval, acquire).result() for _ in range(2)] == [False, False]


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    inspection = inspect(InspectionTask(str(tmp_path / "none.jpg"), str(tmp_path / "staged")), DEFAULTS)
    assert (inspection.defect, inspection.reason) == ("missing", "No such file or directory")


@pytest.mark.parametrize(
    ("name", "right"), [("a.jpg", ".png"), ("a", ".png"), ("a.txt", ".png"), ("a.png", ""), ("a.PNG", "")]
)
def test_the_right_extension_is_found(run: Run, name: str, right: str) -> None:
    inspection = run(encode(draw_photo(), "PNG"), name)
    assert (inspection.extension, inspection.defect) == (right, "extension" if right else "")


def test_a_tiny_photo_is_staged_only_if_it_is_kept(run: Run, tmp_path: Path) -> None:
    data = encode(draw_photo(200, 15))
    inspection = run(data)
    assert (inspection.defect, inspection.reason) == ("tiny", "200 × 15 pixels")
    assert not (tmp_path / "staged").exists()
    assert run(data, options=DEFAULTS._replace(keep_tiny=True)).digest is not None
    assert (tmp_path / "staged").read_bytes() == data


def test_a_truncated_photo_is_repaired_if_requested(run: Run, photo: bytes, tmp_path: Path) -> None:
    inspection = run(photo[: len(photo) * 3 // 4], options=DEFAULTS._replace(repair_truncated=True))
    assert (inspection.defect, inspection.reencoded) == ("truncated", True)
    with Image.open(tmp_path / "staged") as image:
        assert image.size == (320, 240)
        image.load()


def test_a_truncated_tiny_photo_is_repaired_if_both_are_requested(run: Run, tmp_path: Path) -> None:
    data = encode(draw_photo(200, 15, seed=3))
    options = DEFAULTS._replace(repair_truncated=True, keep_tiny=True)
    assert run(data[:-100], options=options).defect == "truncated"
    with Image.open(tmp_path / "staged") as image:
        image.load()
        assert image.size == (200, 15)


@pytest.mark.parametrize(("side", "defect"), [(15, "tiny"), (16, "")])
def test_the_shortest_accepted_side(run: Run, side: int, defect: str) -> None:
    assert run(encode(draw_photo(40, side))).defect == defect


def test_repairing_one_photo_does_not_make_the_next_lenient(run: Run, photo: bytes) -> None:
    run(photo[: len(photo) * 3 // 4], options=DEFAULTS._replace(repair_truncated=True))
    assert run(photo[: len(photo) * 3 // 4]).defect == "truncated"


@pytest.mark.parametrize(("format", "extension"), [("JPEG", ""), ("PNG", ".jpg")])
def test_a_large_photo_is_scaled_down_as_a_jpeg(run: Run, format: str, extension: str, tmp_path: Path) -> None:
    inspection = run(encode(draw_photo(), format), f"a.{format.lower()}", DEFAULTS._replace(longer_side=160))
    assert (inspection.width, inspection.height, inspection.extension, inspection.defect) == (320, 240, extension, "")
    with Image.open(tmp_path / "staged") as image:
        assert (image.format, image.size) == ("JPEG", (160, 120))


def test_a_small_photo_is_not_touched_by_scaling(run: Run, photo: bytes, tmp_path: Path) -> None:
    run(photo, options=DEFAULTS._replace(longer_side=320))
    assert (tmp_path / "staged").read_bytes() == photo


def test_a_turned_photo_is_scaled_upright(run: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    run(encode(draw_photo(), exif=exif), options=DEFAULTS._replace(longer_side=160))
    with Image.open(tmp_path / "staged") as image:
        assert image.size == (120, 160)


def test_a_link_shares_the_bytes_with_the_source(run: Run, photo: bytes, tmp_path: Path) -> None:
    run(photo, options=DEFAULTS._replace(link=True))
    assert (tmp_path / "staged").samefile(tmp_path / "photo.jpg")


def test_a_changed_photo_is_never_linked(run: Run, photo: bytes, tmp_path: Path) -> None:
    run(photo, options=DEFAULTS._replace(link=True, longer_side=100))
    with Image.open(tmp_path / "staged") as image:
        assert max(image.size) == 100
    assert (tmp_path / "photo.jpg").read_bytes() == photo

"""One photo: what is wrong with it is told, what is good is put aside byte for byte."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dataset.inspection import Facts, Task, Wishes, inspect
from support.drawing import draw_photo, encode

PLAIN = Wishes(min_side=16, longer_side=None, repair_truncated=False, keep_tiny=False, link=False)
Look = Callable[..., Facts]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Writes a file, inspects it, and puts its bytes into ``aside``."""

    def look(data: bytes, name: str = "photo.jpg", wishes: Wishes = PLAIN) -> Facts:
        (tmp_path / name).write_bytes(data)
        return inspect(Task(str(tmp_path / name), str(tmp_path / "aside")), wishes)

    return look


def test_a_good_photo_is_put_aside_byte_for_byte(look: Look, photo: bytes, tmp_path: Path) -> None:
    facts = look(photo)
    assert (facts.kind, facts.width, facts.height, facts.size) == ("", 320, 240, len(photo))
    assert (tmp_path / "aside").read_bytes() == photo


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_photo_without_its_end_is_truncated_or_corrupt(look: Look, format: str, tmp_path: Path) -> None:
    data = encode(draw_photo(), format)
    facts = look(data[: len(data) * 2 // 3], f"photo.{format.lower()}")
    assert facts.kind in (
        {"truncated"} if format in ("JPEG", "PNG", "GIF", "WEBP") else {"truncated", "corrupt", "not-image"}
    )
    assert not (tmp_path / "aside").exists()


def test_a_png_with_a_damaged_middle_is_corrupt(look: Look) -> None:
    data = bytearray(encode(draw_photo(), "PNG"))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    assert look(bytes(data), "photo.png").kind == "corrupt"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image: the file is empty"),
        (bytes(1000), "not an image: 1000 zero bytes"),
        (b"<html>404</html>", "not an image: 16 bytes that begin with b'<html>40'"),
    ],
)
def test_what_is_no_image_is_told(look: Look, data: bytes, reason: str) -> None:
    assert look(data)[-3:-1] == ("not-image", reason)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    facts = inspect(Task(str(tmp_path / "none.jpg"), str(tmp_path / "aside")), PLAIN)
    assert (facts.kind, facts.reason) == ("missing", "No such file or directory")


@pytest.mark.parametrize(
    ("name", "right"), [("a.jpg", ".png"), ("a", ".png"), ("a.txt", ".png"), ("a.png", ""), ("a.PNG", "")]
)
def test_the_right_extension_is_found(look: Look, name: str, right: str) -> None:
    facts = look(encode(draw_photo(), "PNG"), name)
    assert (facts.extension, facts.kind) == (right, "extension" if right else "")


def test_a_tiny_photo_is_put_aside_only_when_it_is_kept(look: Look, tmp_path: Path) -> None:
    data = encode(draw_photo(200, 15))
    assert look(data)[-3:-1] == ("tiny", "200 × 15 pixels")
    assert not (tmp_path / "aside").exists()
    assert look(data, wishes=PLAIN._replace(keep_tiny=True)).digest is not None
    assert (tmp_path / "aside").read_bytes() == data


def test_a_truncated_photo_is_repaired_when_told(look: Look, photo: bytes, tmp_path: Path) -> None:
    facts = look(photo[: len(photo) * 3 // 4], wishes=PLAIN._replace(repair_truncated=True))
    assert (facts.kind, facts.fixed) == ("truncated", True)
    with Image.open(tmp_path / "aside") as image:
        assert image.size == (320, 240)
        image.load()


def test_repairing_one_photo_does_not_make_the_next_lenient(look: Look, photo: bytes) -> None:
    look(photo[: len(photo) * 3 // 4], wishes=PLAIN._replace(repair_truncated=True))
    assert look(photo[: len(photo) * 3 // 4]).kind == "truncated"


@pytest.mark.parametrize(("format", "extension"), [("JPEG", ""), ("PNG", ".jpg")])
def test_a_large_photo_is_scaled_down_as_a_jpeg(look: Look, format: str, extension: str, tmp_path: Path) -> None:
    facts = look(encode(draw_photo(), format), f"a.{format.lower()}", PLAIN._replace(longer_side=160))
    assert (facts.width, facts.height, facts.extension, facts.kind) == (320, 240, extension, "")
    with Image.open(tmp_path / "aside") as image:
        assert (image.format, image.size) == ("JPEG", (160, 120))


def test_a_small_photo_is_not_touched_by_scaling(look: Look, photo: bytes, tmp_path: Path) -> None:
    look(photo, wishes=PLAIN._replace(longer_side=320))
    assert (tmp_path / "aside").read_bytes() == photo


def test_a_turned_photo_is_scaled_upright(look: Look, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    look(encode(draw_photo(), exif=exif), wishes=PLAIN._replace(longer_side=160))
    with Image.open(tmp_path / "aside") as image:
        assert image.size == (120, 160)


def test_a_link_shares_the_bytes_with_the_source(look: Look, photo: bytes, tmp_path: Path) -> None:
    look(photo, wishes=PLAIN._replace(link=True))
    assert (tmp_path / "aside").samefile(tmp_path / "photo.jpg")


def test_a_changed_photo_is_never_linked(look: Look, photo: bytes, tmp_path: Path) -> None:
    look(photo, wishes=PLAIN._replace(link=True, longer_side=100))
    assert (tmp_path / "photo.jpg").read_bytes() == photo

"""Scan of a channel: photos, bad photos, unexpected files, leaks and the fingerprint."""

import csv
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import pytest

from classifier.errors import DataError
from classifier.training.folders import list_channel
from classifier.training.scan import ScanResult, check_bad_share, scan_channel, write_bad_images
from support.drawing import draw_photo, encode

ScanFolder = Callable[..., ScanResult]


@pytest.fixture
def scan(executor: Executor) -> ScanFolder:
    """Return a function that scans a folder as a channel."""

    def scan(folder: Path, name: str = "train") -> ScanResult:
        return scan_channel(list_channel(name, folder), executor, lambda: None)

    return scan


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_readable_photos_become_samples_with_their_labels(image_folder: Path, scan: ScanFolder) -> None:
    found = scan(image_folder)
    assert (found.channel, found.bad, found.unexpected_files) == ("train", [], [])
    assert [(sample.name, sample.label) for sample in found.samples] == [
        (f"{name}/{number}.jpg", label) for label, name in enumerate(("cross", "disc", "square")) for number in range(8)
    ]
    assert all(sample.path == image_folder / sample.name for sample in found.samples)
    assert len({sample.digest for sample in found.samples}) == 24


def test_every_file_advances_the_progress_once(image_folder: Path, executor: Executor) -> None:
    (image_folder / "disc" / "bad.jpg").write_bytes(b"")
    steps: list[None] = []
    scan_channel(list_channel("train", image_folder), executor, lambda: steps.append(None))
    assert len(steps) == 25


def test_bad_photos_are_listed_with_name_and_reason(image_folder: Path, scan: ScanFolder, tmp_path: Path) -> None:
    whole = encode(draw_photo(200, 150))
    bad = {
        "cross/cut, short.jpg": (whole[: len(whole) // 2], "corrupt image: image file is truncated"),
        "disc/empty.png": (b"", "not an image: the file is empty"),
        "square/page.jpg": (b"<html>gone</html>", "not an image: 17 bytes that begin with b'<html>go'"),
    }
    for name, (data, _) in bad.items():
        (image_folder / name).write_bytes(data)
    found = scan(image_folder)
    assert len(found.samples) == 24
    assert [item.name for item in found.bad] == list(bad)
    assert all(item.reason.startswith(bad[item.name][1]) for item in found.bad)
    write_bad_images(tmp_path / "new" / "bad_images.csv", [found])
    rows = read_csv(tmp_path / "new" / "bad_images.csv")
    assert rows == [["channel", "path", "reason"], *(["train", item.name, item.reason] for item in found.bad)]


def test_a_broken_link_is_a_bad_photo(image_folder: Path, scan: ScanFolder) -> None:
    (image_folder / "disc" / "gone.jpg").symlink_to(image_folder / "nowhere.jpg")
    (bad,) = scan(image_folder).bad
    assert (bad.name, bad.reason) == ("disc/gone.jpg", "can't be read: No such file or directory")


def test_the_content_and_not_the_name_makes_a_photo(image_folder: Path, scan: ScanFolder) -> None:
    (image_folder / "disc" / "0.jpg").rename(image_folder / "disc" / "no_extension")
    (image_folder / "disc" / "1.jpg").rename(image_folder / "disc" / "1.txt")
    (image_folder / "disc" / "2.jpg").write_bytes(encode(draw_photo(), "PNG"))
    (image_folder / "disc" / "notes.txt").write_text("no photo", encoding="utf-8")
    (image_folder / "labels.csv").write_text("x", encoding="utf-8")
    found = scan(image_folder)
    assert len(found.samples) == 24
    assert found.bad == []
    assert [path.name for path in found.unexpected_files] == ["labels.csv", "notes.txt"]


@pytest.mark.parametrize(
    ("num_bad", "share", "allowed"), [(0, 0.0, True), (1, 0.0, False), (6, 0.2, True), (7, 0.2, False), (7, 1.0, True)]
)
def test_bad_photos_are_tolerated_up_to_a_share(
    image_folder: Path, scan: ScanFolder, num_bad: int, share: float, allowed: bool
) -> None:
    for number in range(num_bad):
        (image_folder / "disc" / f"bad{number}.jpg").write_bytes(b"")
    found = scan(image_folder)
    if allowed:
        check_bad_share(found, share, Path("listing.csv"))
        return
    with pytest.raises(DataError) as caught:
        check_bad_share(found, share, Path("listing.csv"))
    assert str(caught.value) == (
        f"channel 'train': {num_bad} of {24 + num_bad} photos can't be read, and max_bad_images={share:g} allows "
        f"{int(share * (24 + num_bad))}; for example disc/bad0.jpg: not an image: the file is empty; "
        "all are listed in listing.csv"
    )


def test_a_channel_without_readable_photos_is_always_an_error(tmp_path: Path, scan: ScanFolder) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2 of 2 photos can't be read, and none is left; for example a/bad.jpg: "):
        check_bad_share(scan(tmp_path), 1.0, Path("listing.csv"))


def test_a_channel_of_empty_class_folders_is_an_error(tmp_path: Path, scan: ScanFolder) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"^channel 'train': no photos in its class folders; add photos to each$"):
        check_bad_share(scan(tmp_path), 1.0, Path("listing.csv"))

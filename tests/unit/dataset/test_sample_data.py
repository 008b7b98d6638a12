"""The sample data: handwritten digits, each once."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.sample_data import write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "digits"
    write_digits(folder)
    return folder


def photos(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


@pytest.mark.parametrize(("channel", "count"), [("train", 1258), ("validation", 270), ("test", 269)])
def test_each_channel_holds_its_share_of_every_digit(digits: Path, channel: str, count: int) -> None:
    assert len(photos(digits / channel)) == count
    assert sorted(path.name for path in (digits / channel).iterdir()) == list("0123456789")
    assert min(len(photos(folder)) for folder in (digits / channel).iterdir()) > 0.06 * count


def test_every_digit_is_there_once(digits: Path) -> None:
    assert len(photos(digits)) == len({path.name for path in photos(digits)}) == 1797


def test_no_two_channels_hold_the_same_photo(digits: Path) -> None:
    contents = [
        {sha256(path.read_bytes()).digest() for path in photos(digits / channel)}
        for channel in ("train", "validation", "test")
    ]
    assert sum(map(len, contents)) == len(set.union(*contents))


def test_a_digit_is_dark_on_white(digits: Path) -> None:
    with Image.open(photos(digits / "train" / "0")[0]) as photo:
        assert (photo.size, photo.mode) == ((32, 32), "L")
        levels = np.asarray(photo)
    assert levels.max() == 255
    assert levels.min() < 64
    assert np.median(levels) > 128


def test_the_same_photos_every_time(digits: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "again")
    assert [path.relative_to(digits) for path in photos(digits)] == [
        path.relative_to(tmp_path / "again") for path in photos(tmp_path / "again")
    ]
    for path in photos(digits / "test"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(digits)).read_bytes()


def test_an_unfinished_folder_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "digits.part" / "train").mkdir(parents=True)
    (tmp_path / "digits.part" / "train" / "half.png").touch()
    write_digits(tmp_path / "digits")
    assert len(photos(tmp_path / "digits")) == 1797
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]

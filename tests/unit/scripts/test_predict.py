"""Which photos ``predict.py`` finds, and how cheap it is to start."""

import subprocess
import sys
from pathlib import Path

import pytest

from classifier.contract.channels import EXTENSIONS
from classifier.errors import DataError
from launch.endpoint.predictions import find_photos

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_photos_of_every_type_that_training_reads_are_found(tmp_path: Path) -> None:
    names = [f"dress/{case(f'photo{suffix}')}" for suffix in sorted(EXTENSIONS) for case in (str.lower, str.upper)]
    found = find_photos([write(tmp_path, *names)], None)
    assert {str(path.relative_to(tmp_path)) for path in found} == set(names)


def test_other_files_and_junk_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/labels.csv", "a/._1.jpg", "__MACOSX/a/1.jpg", ".thumbnails/1.jpg")
    assert find_photos([tmp_path], None) == [tmp_path / "a" / "1.jpg"]


def test_given_files_are_taken_whatever_their_name(tmp_path: Path) -> None:
    assert find_photos([write(tmp_path, "photo") / "photo"], None) == [tmp_path / "photo"]


@pytest.mark.parametrize(
    ("num", "selected"), [(None, range(10)), (0, range(10)), (20, range(10)), (3, [0, 3, 6]), (1, [0])]
)
def test_a_number_of_photos_is_spread_evenly(tmp_path: Path, num: int | None, selected: list[int]) -> None:
    write(tmp_path, *[f"{index}.jpg" for index in range(10)])
    assert [path.name for path in find_photos([tmp_path], num)] == [f"{index}.jpg" for index in selected]


def test_missing_path_and_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none does not exist$"):
        find_photos([tmp_path / "none"], None)
    with pytest.raises(DataError, match="no photos in "):
        find_photos([tmp_path], None)


def test_predict_starts_without_torch() -> None:
    code = "import sys, predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=SCRIPTS, timeout=60).returncode == 0

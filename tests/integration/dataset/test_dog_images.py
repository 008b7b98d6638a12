"""Preparation of a zip laid out like ``dogImages.zip``, of real photos with planted defects, and training on it."""

import csv
import re
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from classifier.vision.manifest import ModelManifest
from prepare_data import main

ROOT = Path(__file__).resolve().parents[3]
PER_CLASS = {"train": 8, "valid": 3, "test": 3}
TINY = ["model=mobilenet_v3_small", "pretrained=false", "image_size=32", "epochs=1", "batch_size=16"]

Planted = Mapping[str, tuple[bytes, str, str]]  # by path: bytes, kind of defect, outcome


def collect(photos: Path) -> dict[str, bytes]:
    """A few photos of each class under names such as ``dogImages/train/003.Longsleeve/Longsleeve_00012.jpg``."""
    files: dict[str, bytes] = {}
    for split, num in PER_CLASS.items():
        channel = photos / {"valid": "validation"}.get(split, split)
        for label, folder in enumerate(sorted(channel.iterdir()), 1):
            name = folder.name.capitalize()
            for number, photo in enumerate(sorted(folder.iterdir())[:num]):
                files[f"dogImages/{split}/{label:03}.{name}/{name}_{number:05}.jpg"] = photo.read_bytes()
    return files


def plant(files: Mapping[str, bytes]) -> Planted:
    """Defects in additional files, so that every good photo stays good."""
    train = "dogImages/train/001.Dress"
    photo = files[f"{train}/Dress_00000.jpg"]
    tested = files["dogImages/test/001.Dress/Dress_00001.jpg"]
    judging = files["dogImages/valid/004.Outwear/Outwear_00002.jpg"]
    broken = photo[:200] + bytes(len(photo) - 202) + b"\xff\xd9"
    return {
        f"{train}/truncated.jpg": (photo[: len(photo) // 2], "truncated", "left out"),
        "dogImages/test/002.Hat/half.jpg": (tested[:-3000], "truncated", "left out"),
        f"{train}/corrupt.jpg": (broken, "corrupt", "left out"),
        f"{train}/empty.jpg": (b"", "not-image", "left out"),
        f"{train}/page.jpg": (b"<!doctype html><title>404</title>", "not-image", "left out"),
        "dogImages/train/stray.jpg": (photo[:-1] + b"\xd9stray", "misplaced", "left out"),
        "dogImages/loose/lost.jpg": (photo[:-1] + b"\xd9lost", "misplaced", "left out"),
        f"{train}/tested.jpg": (tested, "leak", "left out"),
        "dogImages/train/005.Pants/judging.jpg": (judging, "conflict", "left out"),
        f"{train}/really_a.png": (photo + b"\0", "extension", "repaired"),
        "../dogImages/escape.jpg": (photo, "unsafe", "left out"),
    }


@pytest.fixture
def archive(clothing_photos: Path, tmp_path: Path) -> tuple[Path, dict[str, bytes], Planted]:
    files = collect(clothing_photos)
    planted = plant(files)
    path = tmp_path / "dogImages.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (files | {name: data for name, (data, _, _) in planted.items()}).items():
            file.writestr(name, data)
        # Junk files, as macOS adds them: neither extracted nor reported as defects.
        file.writestr("__MACOSX/dogImages/train/._001.Dress", b"\0\5\26\7")
        file.writestr("dogImages/train/001.Dress/.DS_Store", b"\0")
    return path, files, planted


def test_exactly_the_planted_defects_are_reported(
    archive: tuple[Path, dict[str, bytes], Planted], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, files, planted = archive
    out = tmp_path / "prepared"
    assert main([str(path), str(out)]) == 0
    with (out / "report" / "defects.csv").open(newline="", encoding="utf-8") as file:
        reported = {row["path"]: (row["defect"], row["done"]) for row in csv.DictReader(file)}
    other = "dogImages/valid/004.Outwear/Outwear_00002.jpg"  # the other side of the conflict
    assert reported == {path: (kind, outcome) for path, (_, kind, outcome) in planted.items()} | {
        other: ("conflict", "left out")
    }
    _check_photos(out, files, other)
    output = capfd.readouterr().out
    assert re.search(r"10 classes, [\d.]+ MB +81 +29 +30 +8\n", output)
    assert re.search(r"^truncated +left out +2  e.g. dogImages/test/002.Hat/half.jpg: ", output, re.M)


@pytest.mark.slow
def test_the_prepared_photos_train_a_model(archive: tuple[Path, dict[str, bytes], Planted], tmp_path: Path) -> None:
    out, base = tmp_path / "prepared", tmp_path / "opt_ml"
    assert main([str(archive[0]), str(out)]) == 0
    command = [str(ROOT / "local_test" / "train_local.sh"), "--data", str(out), "--output", str(base), *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = ModelManifest.read(base / "model")
    assert manifest.classes[0].model_dump() == {"folder": "001.Dress", "label": "001", "class_name": "Dress"}
    assert len(manifest.classes) == 10
    assert not (base / "output" / "data" / "leaks.csv").exists()
    with (base / "output" / "data" / "bad_images.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 1


def _check_photos(out: Path, files: Mapping[str, bytes], dropped: str) -> None:
    """Every good photo is there byte for byte, and so is the one with the wrong extension."""
    expected = {
        path.removeprefix("dogImages/").replace("valid/", "validation/"): data
        for path, data in files.items()
        if path != dropped
    }
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/*/*.*")}
    assert found.pop("train/001.Dress/really_a.jpg")
    assert found == expected

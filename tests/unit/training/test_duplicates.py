"""Photos with the same bytes: leaks, conflicts and the fingerprint."""

import csv
import random
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import blake2b
from pathlib import Path

import pytest

from classifier.training.data import split
from classifier.training.duplicates import (
    Leak,
    find_conflicts,
    find_leaks,
    fingerprint,
    write_conflicts,
    write_leaks,
)
from classifier.training.folders import list_channel
from classifier.training.samples import SampleTable
from classifier.training.scan import ScanResult, scan_channel
from support.drawing import write_classes

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


def test_the_same_bytes_in_two_channels_are_a_leak(tmp_path: Path, scan: ScanFolder) -> None:
    train = write_classes(tmp_path / "train", photos_per_class=2)
    validation = write_classes(tmp_path / "validation", photos_per_class=2, seed=1)
    test = write_classes(tmp_path / "test", photos_per_class=2, seed=2)
    shutil.copy(train / "disc" / "0.jpg", validation / "cross" / "renamed.jpg")
    shutil.copy(train / "disc" / "0.jpg", test / "disc" / "again.jpg")
    shutil.copy(validation / "square" / "1.jpg", test / "square" / "late.jpg")
    leaks = find_leaks([scan(train), scan(validation, "validation"), scan(test, "test")])
    assert leaks == [
        Leak("train", "disc/0.jpg", "validation", "cross/renamed.jpg"),
        Leak("train", "disc/0.jpg", "test", "disc/again.jpg"),
        Leak("validation", "square/1.jpg", "test", "square/late.jpg"),
    ]
    write_leaks(tmp_path / "leaks.csv", leaks)
    header, first, *_ = read_csv(tmp_path / "leaks.csv")
    assert header == ["channel", "path", "also_in_channel", "also_in_path"]
    assert first == ["validation", "cross/renamed.jpg", "train", "disc/0.jpg"]


def test_the_same_bytes_in_two_classes_are_a_conflict_within_and_across_channels(
    tmp_path: Path, scan: ScanFolder
) -> None:
    train = write_classes(tmp_path / "train", photos_per_class=2)
    validation = write_classes(tmp_path / "validation", photos_per_class=2, seed=1)
    shutil.copy(train / "disc" / "0.jpg", train / "cross" / "x.jpg")
    shutil.copy(train / "disc" / "0.jpg", train / "disc" / "y.jpg")
    shutil.copy(train / "square" / "1.jpg", validation / "disc" / "z.jpg")
    shutil.copy(train / "square" / "0.jpg", validation / "square" / "same.jpg")
    conflicts = find_conflicts([scan(train), scan(validation, "validation")])
    write_conflicts(tmp_path / "conflicts.csv", conflicts)
    assert read_csv(tmp_path / "conflicts.csv") == [
        ["group", "channel", "path", "class"],
        ["1", "train", "cross/x.jpg", "cross"],
        ["1", "train", "disc/0.jpg", "disc"],
        ["1", "train", "disc/y.jpg", "disc"],
        ["2", "train", "square/1.jpg", "square"],
        ["2", "validation", "disc/z.jpg", "disc"],
    ]


def test_duplicates_within_a_channel_are_not_leaks(image_folder: Path, scan: ScanFolder) -> None:
    shutil.copy(image_folder / "disc" / "0.jpg", image_folder / "disc" / "copy.jpg")
    assert find_leaks([scan(image_folder)]) == []


def test_the_fingerprint_ignores_file_names(image_folder: Path, scan: ScanFolder) -> None:
    before = fingerprint([scan(image_folder)])
    (image_folder / "disc" / "0.jpg").rename(image_folder / "disc" / "zzz.jpg")
    (image_folder / "disc" / "README.txt").write_text("no photo", encoding="utf-8")
    assert fingerprint([scan(image_folder)]) == before


def test_the_fingerprint_depends_on_bytes_classes_channels_and_copies(image_folder: Path, scan: ScanFolder) -> None:
    seen = [fingerprint([scan(image_folder)]), fingerprint([scan(image_folder, "test")])]
    path = image_folder / "disc" / "0.jpg"
    shutil.copy(path, image_folder / "disc" / "copy.jpg")
    seen.append(fingerprint([scan(image_folder)]))
    path.rename(image_folder / "cross" / "moved.jpg")
    seen.append(fingerprint([scan(image_folder)]))
    with (image_folder / "cross" / "moved.jpg").open("ab") as file:
        file.write(b"\0")
    seen.append(fingerprint([scan(image_folder)]))
    assert len(set(seen)) == 5


def rows_of(seed: int, count: int) -> list[tuple[str, int, bytes]]:
    """Name, label and digest of photos in twelve classes, with copies within classes and across them."""
    generator, rows = random.Random(seed), []
    for label in range(12):
        for number in range(count):
            content = generator.randrange(400) + (1000 * label if generator.random() < 0.97 else 0)
            name = f"c{label}/ä {generator.randrange(10**6)}-{number}.jpg"
            rows.append((name, label, blake2b(str(content).encode(), digest_size=16).digest()))
    return rows


def digest_of(value: object) -> str:
    return blake2b(repr(value).encode(), digest_size=8).hexdigest()


def test_results_are_those_of_lists_of_samples() -> None:
    """The expected values were computed by code that kept an object for each photo."""
    classes = tuple(f"c{label}" for label in range(12))
    results = [
        ScanResult(name, classes, SampleTable.pack(Path("/x"), rows_of(seed, count)), [], [])
        for name, seed, count in (("train", 1, 90), ("validation", 2, 30), ("test", 3, 40))
    ]
    assert fingerprint(results) == "b3bf8aee72fd532051f7fc5aa030622d"
    leaks = [(leak.first_channel, leak.first, leak.second_channel, leak.second) for leak in find_leaks(results)]
    assert (len(leaks), digest_of(leaks)) == (211, "ee220e967affcdee")
    conflicts = [tuple(conflict) for conflict in find_conflicts(results)]
    assert (len(conflicts), digest_of(conflicts)) == (40, "d57d88e4fee2360a")
    for share, seed, train, validation in (
        (0.2, 0, "5abb5b942de39efa", "ddef50a5dcb3272a"),
        (0.5, 7, "4dbf2d4711dce500", "fedafcbe3c066110"),
        (0.05, 3, "7d7f62540f06aa05", "f53ca9f38eb05888"),
    ):
        parts = split(results[0].samples, share, seed)
        assert [digest_of([sample.name for sample in part]) for part in parts] == [train, validation]

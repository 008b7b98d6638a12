"""Photos of a job by channel, the faults that are reported, and the validation split."""

import shutil
from collections import Counter
from concurrent.futures import Executor
from hashlib import blake2b
from pathlib import Path

import pytest

from classifier.contract.config import Channel, TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import DataError
from classifier.training.console import Console, Progress, StopSignal
from classifier.training.data import Data, list_channels, load_data, split, truncation_policy
from classifier.training.samples import SampleTable
from support.drawing import draw_photo, encode, write_classes


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A platform with one channel, ``train``: three classes of eight photos."""
    paths = Paths(tmp_path / "opt_ml")
    write_classes(paths.channel("train"))
    return paths


def config_of(paths: Paths, **parameters: object) -> TrainingConfig:
    """Every channel that has a folder."""
    channels = {folder.name: Channel.model_validate({}) for folder in paths.channel("train").parent.iterdir()}
    return TrainingConfig(Hyperparameters.parse(parameters), channels)


def load(paths: Paths, executor: Executor, **parameters: object) -> Data:
    config = config_of(paths, **parameters)
    folders = list_channels(config, paths)
    progress = Progress(Console(), StopSignal())
    with truncation_policy(config.hyperparameters):
        return load_data(folders, config.hyperparameters, paths.output_data, executor, progress)


def names(samples: SampleTable) -> set[str]:
    return {sample.name for sample in samples}


def test_train_is_split_if_there_is_no_validation_channel(paths: Paths, executor: Executor) -> None:
    data = load(paths, executor, validation_split="0.25")
    assert Counter(sample.label for sample in data.validation) == {0: 2, 1: 2, 2: 2}
    assert Counter(sample.label for sample in data.train) == {0: 6, 1: 6, 2: 6}
    assert [item.folder for item in data.classes] == ["cross", "disc", "square"]
    assert len(data.test) == 0


def test_existing_channels_are_used_whole(paths: Paths, executor: Executor) -> None:
    write_classes(paths.channel("validation"), photos_per_class=2, seed=1)
    write_classes(paths.channel("test"), photos_per_class=3, seed=2)
    write_classes(paths.channel("pretrained"), classes=("disc",), seed=3)
    data = load(paths, executor)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [24, 6, 9]


def test_photo_channels_are_listed_with_train_first(paths: Paths) -> None:
    for name in ("test", "validation", "pretrained", "model"):
        write_classes(paths.channel(name), photos_per_class=1)
    assert [folder.name for folder in list_channels(config_of(paths), paths)] == ["train", "validation", "test"]


def test_a_single_class_is_an_error(paths: Paths) -> None:
    for name in ("cross", "square"):
        shutil.rmtree(paths.channel("train") / name)
    with pytest.raises(
        DataError, match=r"^channel 'train': its only class is 'disc'; add a folder for each further class$"
    ):
        list_channels(config_of(paths), paths)


@pytest.mark.parametrize("channel", ["validation", "test"])
def test_channels_with_different_classes_are_an_error(paths: Paths, channel: str) -> None:
    write_classes(paths.channel(channel), classes=("disc", "square"))
    with pytest.raises(
        DataError, match=f"^channels 'train' and '{channel}' hold different classes: 'cross' only in 'train'; "
    ):
        list_channels(config_of(paths), paths)


def test_a_class_without_readable_photos_is_an_error(paths: Paths, executor: Executor) -> None:
    for photo in (paths.channel("train") / "disc").iterdir():
        photo.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"^channel 'train': no readable photo in 'disc'; add some or remove the folder$"
    ):
        load(paths, executor, max_bad_images="1")


def test_too_many_bad_photos_are_an_error_and_listed(paths: Paths, executor: Executor) -> None:
    for number in range(3):
        (paths.channel("train") / "disc" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 24 photos can't be read, and max_bad_images=0.1 allows 2; "):
        load(paths, executor, max_bad_images="0.1")
    listed = (paths.output_data / "bad_images.csv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 4


def test_skips_and_leaks_are_reported(paths: Paths, executor: Executor, capsys: pytest.CaptureFixture[str]) -> None:
    train, validation = paths.channel("train"), write_classes(paths.channel("validation"), seed=1)
    (train / "disc" / "bad.jpg").write_bytes(b"")
    (train / "notes.txt").write_text("no photo", encoding="utf-8")
    shutil.copy(train / "disc" / "0.jpg", validation / "disc" / "leak.jpg")
    data = load(paths, executor)
    assert len(data.train) == 24
    bad, unexpected, leak = capsys.readouterr().out.splitlines()
    assert all(line.startswith("warning: ") for line in (bad, unexpected, leak))
    assert "disc/bad.jpg (not an image: the file is empty)" in bad
    assert "notes.txt" in unexpected
    assert "validation/disc/leak.jpg is train/disc/0.jpg" in leak
    assert (paths.output_data / "leaks.csv").is_file()


def test_the_same_bytes_in_two_classes_are_reported_and_listed(
    paths: Paths, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cross", "square"):
        shutil.copy(paths.channel("train") / "disc" / "0.jpg", paths.channel("train") / name / "not_found.jpg")
    data = load(paths, executor)
    assert not [sample.name for sample in data.validation if sample.name.endswith("not_found.jpg")]
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "warning: the same bytes in different classes, of which at most one can be right: 3 photos of 1 different "
        "contents (train/cross/not_found.jpg; train/disc/0.jpg; train/square/not_found.jpg); "
        f"all are listed in {paths.output_data / 'conflicts.csv'}"
    )
    assert (paths.output_data / "conflicts.csv").read_text(encoding="utf-8").splitlines() == [
        "group,channel,path,class",
        "1,train,cross/not_found.jpg,cross",
        "1,train,disc/0.jpg,disc",
        "1,train,square/not_found.jpg,square",
    ]


def test_classes_in_subfolders_cause_a_warning(
    paths: Paths, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(paths.channel("train") / "crops", seed=1)
    load(paths, executor)
    assert capsys.readouterr().out.startswith("warning: all photos of 'crops' are in subfolders of the class folder")


def test_clean_data_causes_no_warnings(paths: Paths, executor: Executor, capsys: pytest.CaptureFixture[str]) -> None:
    load(paths, executor)
    assert capsys.readouterr().out == ""
    assert not (paths.output_data / "leaks.csv").exists()
    assert not (paths.output_data / "conflicts.csv").exists()


@pytest.mark.parametrize(("policy", "num_photos"), [("skip", 24), ("load", 25)])
def test_truncated_photos_are_skipped_or_loaded_as_configured(
    paths: Paths, executor: Executor, policy: str, num_photos: int
) -> None:
    whole = encode(draw_photo())
    (paths.channel("train") / "disc" / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    data = load(paths, executor, truncated_images=policy)
    assert len(data.train) + len(data.validation) == num_photos


def sample(label: int, number: int, content: str | None = None) -> tuple[str, int, bytes]:
    name = f"{label}/{number}.jpg"
    return name, label, blake2b((content or name).encode(), digest_size=16).digest()


def names_after_split(rows: list[tuple[str, int, bytes]], share: float, seed: int) -> list[list[str]]:
    return [[item.name for item in part] for part in split(SampleTable.pack(Path("/"), rows), share, seed)]


def test_split_is_stratified_complete_and_seeded() -> None:
    samples = [sample(label, number) for label, count in enumerate((10, 50, 5)) for number in range(count)]
    table = SampleTable.pack(Path("/"), samples)
    train, validation = split(table, 0.2, seed=3)
    assert Counter(item.label for item in validation) == {0: 2, 1: 10, 2: 1}
    assert names(train) | names(validation) == names(table)
    assert not names(train) & names(validation)
    assert names_after_split(samples[::-1], 0.2, seed=3) == names_after_split(samples, 0.2, seed=3)
    assert names(split(table, 0.2, seed=4)[1]) != names(validation)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_split_puts_each_class_of_two_photos_on_both_sides(share: float, count: int) -> None:
    rows = [sample(label, number) for label in range(3) for number in range(count)]
    train, validation = split(SampleTable.pack(Path("/"), rows), share, seed=0)
    assert {item.label for item in train} == {item.label for item in validation} == {0, 1, 2}


def test_split_trains_on_the_only_photo_of_a_class() -> None:
    train, validation = split(SampleTable.pack(Path("/"), [sample(0, 0), sample(1, 0), sample(1, 1)]), 0.5, seed=0)
    assert {item.label for item in train} == {0, 1}
    assert {item.label for item in validation} == {1}


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_copies_of_a_photo_on_one_side(seed: int) -> None:
    samples = [sample(label, number, f"{label}{number // 3}") for label in range(2) for number in range(12)]
    train, validation = split(SampleTable.pack(Path("/"), samples), 0.25, seed)
    assert not {item.digest for item in train} & {item.digest for item in validation}
    assert len(validation) == 6


@pytest.mark.parametrize("seed", range(5))
def test_split_trains_on_bytes_that_are_in_several_classes(seed: int) -> None:
    placeholders = [sample(label, 90 + number, "placeholder") for label in range(3) for number in range(4)]
    samples = [*(sample(label, number) for label in range(3) for number in range(10)), *placeholders]
    train, validation = split(SampleTable.pack(Path("/"), samples), 0.3, seed)
    assert {name for name, _, _ in placeholders} <= names(train)
    assert Counter(item.label for item in validation) == {0: 3, 1: 3, 2: 3}
    assert names(train) | names(validation) == {name for name, _, _ in samples}
    assert names_after_split(samples[::-1], 0.3, seed) == names_after_split(samples, 0.3, seed)


@pytest.mark.parametrize(
    "samples",
    [[sample(0, 0), sample(1, 0)], [sample(label, number, str(label)) for label in (1, 2) for number in (1, 2)]],
)
def test_split_of_one_photo_per_class_is_an_error(samples: list[tuple[str, int, bytes]]) -> None:
    with pytest.raises(
        DataError, match=r"^channel 'train': one photo per class leaves none for validation; add photos$"
    ):
        split(SampleTable.pack(Path("/"), samples), 0.5, seed=0)

"""Checks of a training's set-up, and what it reports of the ranks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from classifier.training.console import Console
from classifier.training.data import Data
from classifier.training.fit import check_shares
from classifier.training.group import Group
from classifier.training.samples import SampleTable


class Warnings(Console):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def warnings_of(num_ranks: int, num_photos: int, parameters: Mapping[str, object]) -> list[str]:
    group, console = Group(), Warnings()
    group.world_size = num_ranks
    table = SampleTable.pack(Path("train"), [(f"a/{number}.jpg", 0, bytes(16)) for number in range(num_photos)])
    data = Data((), table, table[:0], table[:0], "")
    check_shares(Hyperparameters.parse(parameters), data, group, console)
    return console.lines


@pytest.mark.parametrize(("num_ranks", "num_photos", "batch_size"), [(1, 4, 2), (4, 1000, 40), (2, 1000, 16)])
def test_shares_of_eight_photos_are_enough(num_ranks: int, num_photos: int, batch_size: int) -> None:
    assert warnings_of(num_ranks, num_photos, {"batch_size": batch_size}) == []


def test_small_shares_are_a_warning() -> None:
    assert warnings_of(8, 1000, {"batch_size": 32}) == [
        "warning: 8 ranks share batches of 32 photos and spend much of their time waiting for each other: raise "
        "batch_size, the number of photos per step of all ranks together, or use fewer ranks"
    ]


def test_a_rank_does_not_normalize_one_photo_by_itself() -> None:
    single = {"batch_size": 7, "sync_batchnorm": False}
    with pytest.raises(ConfigError, match=r"^4 ranks share batches of 6 photos, .*\(now 7\), or set sync_batchnorm"):
        warnings_of(4, 30, single)
    for other in ({**single, "sync_batchnorm": True}, {**single, "freeze": "backbone"}, {**single, "batch_size": 15}):
        assert len(warnings_of(4, 30, other)) == 1


def test_photos_are_found_in_the_folder_of_each_host(tmp_path: Path) -> None:
    table = SampleTable.pack(tmp_path / "one" / "input" / "train", [("a/0.jpg", 0, bytes(16))])
    for name in ("one", "two"):
        folder = tmp_path / name / "input" / "train" / "a"
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_text(name)
    moved = Data((), table, table[:0], table.select(np.array([0])), "").moved(tmp_path / "one", tmp_path / "two")
    assert [table.read(0), moved.train.read(0), moved.test.read(0)] == [b"one", b"two", b"two"]
    assert moved.train[0].path == tmp_path / "two" / "input" / "train" / "a" / "0.jpg"

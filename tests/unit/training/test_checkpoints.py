"""Checkpoint files: whole after any kill, read with every doubt, deleted only when another one is safe."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from classifier.training.checkpoints import Checkpoint, CheckpointFolder, CheckpointSaver, Position


class Killed(BaseException):
    """The process ends here."""


def checkpoint(epoch: int, step: int = 0) -> Checkpoint:
    tensors = {
        "model/weight": torch.arange(600.0).view(2, 3, 10, 10).contiguous(memory_format=torch.channels_last) + step,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(epoch),
        "callbacks/none": torch.zeros(0, dtype=torch.uint8),
    }
    return Checkpoint(Position(epoch, step), f'{{"epoch": {epoch}}}', tensors)


def same(first: Checkpoint | None, second: Checkpoint) -> bool:
    return (
        first is not None
        and (first.position, first.header, first.tensors.keys())
        == (second.position, second.header, second.tensors.keys())
        and all(torch.equal(one, second.tensors[name]) for name, one in first.tensors.items())
    )


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, warnings: list[str]) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", warnings.append)


def newest(folder: CheckpointFolder) -> Checkpoint | None:
    return folder.read_newest(lambda _: None)


def names(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "checkpoints").iterdir()}


def file_of(tmp_path: Path, epoch: int, step: int = 0, suffix: str = "") -> Path:
    return tmp_path / "checkpoints" / (Position(epoch, step).file_name + suffix)


def test_the_newest_checkpoint_is_read_as_it_was_written(folder: CheckpointFolder, warnings: list[str]) -> None:
    assert newest(folder) is None
    for one in (checkpoint(9, 700), checkpoint(10, 3), checkpoint(10, 20)):
        folder.write(one)
        assert same(newest(folder), one)
    assert warnings == []


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": half,
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flipped,
    "text": lambda path: path.write_text("no checkpoint"),
    "foreign": lambda path: save_file({"weight": torch.zeros(3)}, path),
    "unreadable": lambda path: (path.unlink(), path.symlink_to("/proc/1/mem")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    folder: CheckpointFolder, tmp_path: Path, warnings: list[str], damage: str
) -> None:
    folder.write(checkpoint(1))
    folder.write(checkpoint(2))
    DAMAGES[damage](file_of(tmp_path, 2))
    assert same(newest(folder), checkpoint(1))
    assert len(warnings) == 1
    assert f"checkpoint {file_of(tmp_path, 2)} is passed over, since it is damaged: " in warnings[0]
    # It does not count as one of the two that are kept, and the next of its name replaces it.
    folder.write(checkpoint(1, 5))
    assert file_of(tmp_path, 1).exists()
    folder.write(checkpoint(2))
    assert same(newest(folder), checkpoint(2))
    assert len(warnings) == 1


def test_a_checkpoint_of_another_version_of_the_program_is_passed_over(
    folder: CheckpointFolder, warnings: list[str]
) -> None:
    folder.write(checkpoint(1))

    def parse(header: str) -> None:
        raise ValueError(header)

    assert folder.read_newest(parse) is None
    assert "since another version of this program wrote it" in warnings[0]


def test_other_files_are_left_alone(folder: CheckpointFolder, tmp_path: Path, warnings: list[str]) -> None:
    foreign = {"notes.txt", "checkpoint-1.safetensors", "model.pth", "checkpoint-0009-00000000.safetensors"}
    folder.write(checkpoint(1))
    for name in foreign:
        path = tmp_path / "checkpoints" / name
        path.mkdir() if name.startswith("checkpoint-0009") else path.write_text("theirs")
    for epoch in (2, 3, 4):
        folder.write(checkpoint(epoch))
    assert same(newest(folder), checkpoint(4))
    assert names(tmp_path) == {*foreign, Position(3, 0).file_name, Position(4, 0).file_name}
    assert warnings == []


def test_two_are_kept_where_uploads_are_not_marked(folder: CheckpointFolder, tmp_path: Path) -> None:
    for epoch in range(1, 6):
        folder.write(checkpoint(epoch))
    assert names(tmp_path) == {Position(4, 0).file_name, Position(5, 0).file_name}


def test_the_newest_uploaded_checkpoint_and_those_being_uploaded_are_kept(
    folder: CheckpointFolder, tmp_path: Path
) -> None:
    for epoch, marker in ((1, "uploaded"), (2, "uploaded"), (3, "uploading"), (4, None), (5, None)):
        folder.write(checkpoint(epoch))
        if marker:
            file_of(tmp_path, epoch, suffix=f".sagemaker-{marker}").touch()
    folder.write(checkpoint(6))
    kept = {name for name in names(tmp_path) if name.endswith(".safetensors")}
    assert kept == {Position(epoch, 0).file_name for epoch in (2, 3, 5, 6)}
    assert not file_of(tmp_path, 1, suffix=".sagemaker-uploaded").exists()
    # Once a later one has been uploaded, the earlier ones go.
    file_of(tmp_path, 3, suffix=".sagemaker-uploading").rename(file_of(tmp_path, 3, suffix=".sagemaker-uploaded"))
    folder.write(checkpoint(7))
    kept = {name for name in names(tmp_path) if name.endswith(".safetensors")}
    assert kept == {Position(epoch, 0).file_name for epoch in (3, 6, 7)}


STEPS = [("fsync", number) for number in range(2)] + [("replace", 0), ("unlink", 0), ("unlink", 1), ("save_file", 0)]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("function", "number"), STEPS)
def test_a_kill_between_any_two_steps_of_writing_leaves_a_whole_checkpoint(
    folder: CheckpointFolder,
    tmp_path: Path,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    number: int,
    before: bool,
) -> None:
    for epoch in (1, 2):
        folder.write(checkpoint(epoch))
    module = "classifier.training.checkpoints" if function == "save_file" else "os"
    original = getattr(__import__(module, fromlist=[function]), function)
    calls = 0

    def dying(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= number:
            return original(*arguments, **options)
        if not before:
            original(*arguments, **options)
        elif function == "save_file":
            Path(str(arguments[1])).write_bytes(b"the first half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{function}", dying)
        with pytest.raises(Killed):
            folder.write(checkpoint(3))
    again = CheckpointFolder(tmp_path / "checkpoints", warnings.append)
    found = newest(again)
    assert same(found, checkpoint(2)) or same(found, checkpoint(3))
    assert warnings == []
    again.write(checkpoint(4))
    assert len(names(tmp_path)) == 2


class Clock:
    """A clock that stands still unless a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_checkpoints_are_due_at_the_interval_and_at_the_ends_of_epochs_as_far_as_they_cost_little(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, folder = Clock(), CheckpointFolder(tmp_path, warnings.append)
    monkeypatch.setattr(folder, "write", lambda _: setattr(clock, "now", clock.now + 2))
    saver = CheckpointSaver(folder, interval_s=600, warn=warnings.append, clock=clock)
    due: list[tuple[int, bool]] = []
    assert saver.is_due(at_epoch_end=True)
    assert not saver.is_due(at_epoch_end=False)
    saver.save_and_wait(lambda: checkpoint(1))  # takes 2 s, of which 100 s are 2 %
    for clock.now, at_epoch_end in ((99, True), (101, True), (599, False), (601, False)):
        due.append((int(clock.now), saver.is_due(at_epoch_end=at_epoch_end)))
    saver.close()
    assert due == [(99, False), (101, True), (599, False), (601, True)]


def test_a_save_that_is_under_way_skips_the_next(tmp_path: Path, warnings: list[str]) -> None:
    read, write = os.pipe()

    class Slow(CheckpointFolder):
        def write(self, checkpoint: Checkpoint) -> None:
            os.read(read, 1)
            super().write(checkpoint)

    saver = CheckpointSaver(Slow(tmp_path / "checkpoints", warnings.append), interval_s=0, warn=warnings.append)
    saver.save(lambda: checkpoint(1))
    assert not saver.is_due(at_epoch_end=True)
    os.write(write, b"go")
    saver.save_and_wait(lambda: checkpoint(2))
    assert saver.is_due(at_epoch_end=False)
    saver.close()
    assert names(tmp_path) == {Position(1, 0).file_name, Position(2, 0).file_name}
    os.close(read)
    os.close(write)


def test_a_checkpoint_that_cannot_be_written_is_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").touch()
    saver = CheckpointSaver(
        CheckpointFolder(tmp_path / "file" / "checkpoints", warnings.append), interval_s=0, warn=warnings.append
    )
    saver.save_and_wait(lambda: checkpoint(1))
    saver.close()
    assert len(warnings) == 1
    assert warnings[0].startswith(f"checkpoint {Position(1, 0).file_name} could not be written: ")

"""Steps and their phases: counted, put in their places, and opened by smdebug's own reader."""

import time
from pathlib import Path

import pytest

from classifier.callbacks import Phase
from classifier.profiling.steps import PHASES, Clock, HostClock, StepTimer
from classifier.profiling.system import SystemFiles
from classifier.profiling.timeline import Timeline
from support.profiles import read_frames, sample

TRAINING: tuple[Phase, ...] = ("data", "transfer", "forward", "backward", "optimizer")


class LateClock:
    """A second from mark to mark, and marks that pass only when ``synchronize`` waits for them, as a GPU's may."""

    def __init__(self) -> None:
        self.made, self.passed, self.waits = 0, 0, 0

    def mark(self) -> int:
        self.made += 1
        return self.made

    def has_passed(self, mark: int) -> bool:
        return mark <= self.passed

    def seconds(self, begin: int, end: int) -> float:
        assert end <= self.passed, "a mark that has not passed can't be read"
        return end - begin

    def synchronize(self) -> None:
        self.passed, self.waits = self.made, self.waits + 1


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return Timeline(tmp_path, "algo-1")


@pytest.fixture(params=[HostClock, LateClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    return request.param()


def take(timer: StepTimer, count: int, phases: tuple[Phase, ...] = TRAINING) -> None:
    for _ in range(count):
        timer.begin_step()
        for name in phases:
            with timer.phase(name):
                pass
        timer.end_step(is_usual=True)


def train(timer: StepTimer) -> None:
    """Two epochs of 70 steps, validations of five, a checkpoint after each, and a test."""
    for epoch in (1, 2):
        timer.begin_pass("train", epoch)
        take(timer, 70)
        timer.begin_pass("validation", epoch)
        take(timer, 5, ("data", "transfer", "forward"))
        timer.begin_step()  # which finds no more batches
        with timer.phase("data"):
            pass
        with timer.phase("checkpoint"):
            pass
        timer.end_pass()
    timer.begin_pass("test", 2)
    take(timer, 3, ("data", "transfer", "forward"))
    timer.end_pass()


def test_every_step_is_counted_once(clock: Clock, timeline: Timeline) -> None:
    timer = StepTimer(clock, timeline)
    train(timer)
    table = timer.table()
    assert [len(table.of(mode)) for mode in ("train", "validation", "test")] == [140, 10, 3]
    assert table.of("train").number.tolist() == list(range(140))
    assert table.of("train").epoch.tolist() == [1] * 70 + [2] * 70
    assert table.of("train").is_usual.tolist() == ([False] + [True] * 69) * 2
    assert (table.phases.sum(axis=1) <= table.seconds + 1e-9).all()
    assert all(timer.passes_s[mode] > 0 for mode in ("train", "validation", "test"))


def test_phases_that_pass_late_are_read_when_they_have_passed(timeline: Timeline) -> None:
    clock = LateClock()
    timer = StepTimer(clock, timeline)
    timer.begin_pass("train", 1)
    take(timer, 500)
    assert clock.waits == 1, "no step waits for being measured"
    assert len(timer.table()) == 0
    timer.end_pass()
    table = timer.table()
    assert len(table) == 500
    # From mark to mark a second: two marks a phase, and one before and after them all.
    assert table.seconds.tolist() == [11.0] * 500
    assert table.phases.tolist() == [[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]] * 500


def test_phase_takes_the_time_of_its_body(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    timer = StepTimer(HostClock(), timeline)
    timer.begin_pass("train", 1)
    timer.begin_step()
    with timer.phase("data"):
        now += 0.5
    with timer.phase("forward"):
        pass
    timer.end_step(is_usual=True)
    timer.end_pass()
    (spent,) = timer.table().phases
    assert spent[PHASES.index("data")] == 0.5
    assert timer.passes_s["train"] >= timer.table().seconds[0] >= spent.sum()


def test_profilers_own_time_is_excluded(timeline: Timeline) -> None:
    timer = StepTimer(HostClock(), timeline)
    timer.begin_pass("train", 1)
    timer.exclude(1000.0)
    timer.end_pass()
    assert timer.passes_s["train"] < 0
    timer.exclude(1000.0)  # between two passes: belongs to none
    assert sum(timer.passes_s.values()) > -1000


def test_smdebug_reads_steps_and_phases(tmp_path: Path, timeline: Timeline) -> None:
    before = sample()._replace(time_s=time.time() - 60)
    files = SystemFiles(tmp_path, "algo-1")
    files.write(before)
    files.close()
    timer = StepTimer(HostClock(), timeline)
    train(timer)
    timeline.flush()
    frame = read_frames(tmp_path).get_all_framework_metrics()
    counts = frame["process"].value_counts().to_dict()
    assert counts == {
        **dict.fromkeys(("Step:ModeKeys.TRAIN", "DataLoaderIter-TRAIN", "HostToDevice-TRAIN", "Forward-TRAIN"), 140),
        **dict.fromkeys(("Backward-TRAIN", "Optimizer-TRAIN"), 140),
        **dict.fromkeys(("Step:ModeKeys.EVAL", "DataLoaderIter-EVAL", "HostToDevice-EVAL", "Forward-EVAL"), 10),
        **dict.fromkeys(("Step:ModeKeys.PREDICT", "DataLoaderIter-PREDICT"), 3),
        **dict.fromkeys(("HostToDevice-PREDICT", "Forward-PREDICT"), 3),
        "Checkpoint-TRAIN": 2,
    }
    steps = frame[frame["process"] == "Step:ModeKeys.TRAIN"]
    assert sorted(steps["step"]) == list(range(140))
    table = timer.table().of("train")
    assert (steps["end_time_us"] - steps["start_time_us"]).sum() == pytest.approx(1e6 * table.seconds.sum(), abs=140)


def test_a_long_training_does_not_fill_the_disk(tmp_path: Path, timeline: Timeline) -> None:
    for step in range(20_000):
        timeline.add("step", "train", step, time.time(), 0.001)
    timeline.flush()
    (path,) = tmp_path.rglob("*_pythontimeline.json")
    assert path.read_text().count('"dur"') == 10_000 + 100

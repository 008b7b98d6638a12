"""Steps and phases: counts, times, and files that smdebug reads."""

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
    """A clock with a second between marks, which pass only during ``synchronize``, as those of a GPU may."""

    def __init__(self) -> None:
        self.made, self.passed, self.waits = 0, 0, 0

    def mark(self) -> int:
        self.made += 1
        return self.made

    def has_passed(self, mark: int) -> bool:
        return mark <= self.passed

    def seconds(self, begin: int, end: int) -> float:
        assert end <= self.passed, "a mark is read before it has passed"
        return end - begin

    def synchronize(self) -> None:
        self.passed, self.waits = self.made, self.waits + 1


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return Timeline(tmp_path, "algo-1")


@pytest.fixture(params=[HostClock, LateClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    return request.param()


def run_steps(timer: StepTimer, count: int, phases: tuple[Phase, ...] = TRAINING) -> None:
    for _ in range(count):
        timer.begin_step()
        for name in phases:
            with timer.phase(name):
                pass
        timer.end_step(is_usual=True)


def train(timer: StepTimer) -> None:
    """Time two epochs of 70 steps, each with a validation of 5 and a checkpoint, and a test of 3."""
    for epoch in (1, 2):
        timer.begin_pass("train", epoch)
        run_steps(timer, 70)
        timer.begin_pass("validation", epoch)
        run_steps(timer, 5, ("data", "transfer", "forward"))
        timer.begin_step()  # which gets no batch
        with timer.phase("data"):
            pass
        with timer.phase("checkpoint"):
            pass
        timer.end_pass()
    timer.begin_pass("test", 2)
    run_steps(timer, 3, ("data", "transfer", "forward"))
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


def test_marks_are_read_only_after_the_device_has_passed_them(timeline: Timeline) -> None:
    clock = LateClock()
    timer = StepTimer(clock, timeline)
    timer.begin_pass("train", 1)
    run_steps(timer, 500)
    assert clock.waits == 1, "measuring must not block a step"
    assert len(timer.table()) == 0
    timer.end_pass()
    table = timer.table()
    assert len(table) == 500
    # A second between marks: each phase has two, and the step one before and one after them.
    assert table.seconds.tolist() == [11.0] * 500
    assert table.phases.tolist() == [[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]] * 500


def test_duration_of_a_phase_is_that_of_its_body(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
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
    timer.exclude(1000.0)  # between two passes, so counted in neither
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


def test_only_every_hundredth_step_after_10_000_is_written(tmp_path: Path, timeline: Timeline) -> None:
    for step in range(20_000):
        timeline.add("step", "train", step, time.time(), 0.001)
    timeline.flush()
    (path,) = tmp_path.rglob("*_pythontimeline.json")
    assert path.read_text().count('"dur"') == 10_000 + 100


def test_disturbed_steps_are_left_out_with_the_time_until_the_next(timeline: Timeline) -> None:
    timer, began_s = StepTimer(HostClock(), timeline), time.perf_counter()
    timer.begin_pass("train", 1)
    for number in range(4):
        timer.begin_step()
        if number == 2:
            timer.disturb()
        timer.end_step(is_usual=True)
        time.sleep(0.3 if number == 2 else 0.0)
    timer.end_pass()
    assert timer.table().number.tolist() == [0, 1, 3]
    assert timer.num_disturbed == 1
    assert timer.disturbed_s >= 0.3
    assert timer.passes_s["train"] <= time.perf_counter() - began_s - timer.disturbed_s

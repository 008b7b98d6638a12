"""The steps that torch's profiler records, and the operators found."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from classifier.contract.config import StepRange
from classifier.profiling.operators import OperatorRecorder


def watched(watch: OperatorRecorder, num_steps: int) -> list[int]:
    numbers = []
    for number in range(num_steps):
        watch.begin_step(number)
        if watch.is_recording:
            numbers.append(number)
        with watch.phase("forward"):
            torch.mm(torch.ones(8, 8), torch.ones(8, 8))
        watch.end_step(number)
    return numbers


@pytest.mark.parametrize(
    ("asked", "num_epochs", "steps_per_epoch", "expected"),
    [
        (StepRange(), 2, 100, [5, 6, 7]),
        (StepRange(start_step=8, num_steps=1), 1, 100, [8]),
        (StepRange(), 1, 6, [3, 4, 5]),
        (StepRange(), 1, 2, [0, 1]),
        (StepRange(), 1, 1, [0]),
        (StepRange(), 9, 1, [5]),
        (StepRange(), 3, 3, [3, 4, 5]),
        (StepRange(start_step=1000, num_steps=2), 3, 3, [7, 8]),
    ],
)
def test_steps_of_one_epoch_are_watched(
    tmp_path: Path, asked: StepRange, num_epochs: int, steps_per_epoch: int, expected: list[int]
) -> None:
    watch = OperatorRecorder(asked, tmp_path / "trace.json.gz")
    watch.plan(num_epochs, steps_per_epoch, on_gpu=False)
    assert watched(watch, num_epochs * steps_per_epoch) == expected


def test_operators_are_sorted_by_own_time_and_phases_are_in_the_trace(tmp_path: Path) -> None:
    watch = OperatorRecorder(StepRange(), tmp_path / "new" / "trace.json.gz")
    watch.plan(1, 20, on_gpu=False)
    assert watch.trace is None
    watched(watch, 20)
    assert {operator.name: operator.calls for operator in watch.operators}["aten::mm"] == 3
    assert "forward" not in {operator.name for operator in watch.operators}
    times = [operator.self_cpu_ms for operator in watch.operators]
    assert times == sorted(times, reverse=True)
    assert watch.trace is not None
    events = json.loads(gzip.decompress(watch.trace.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "forward" for event in events) == 3


def test_unwritable_trace_is_a_failure_that_is_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    watch = OperatorRecorder(StepRange(), tmp_path / "file" / "trace.json.gz")
    watch.plan(1, 20, on_gpu=False)
    watched(watch, 20)
    assert isinstance(watch.failure, OSError)
    assert watch.trace is None
    assert watch.operators

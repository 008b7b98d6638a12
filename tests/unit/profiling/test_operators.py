"""Steps recorded by torch's profiler, and their operators."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from classifier.contract.config import StepRange
from classifier.profiling.operators import OperatorRecorder


def record_steps(recorder: OperatorRecorder, num_steps: int) -> list[int]:
    """Run steps and return the numbers of those that were recorded."""
    numbers = []
    for number in range(num_steps):
        recorder.begin_step(number)
        if recorder.is_recording:
            numbers.append(number)
        with recorder.phase("forward"):
            torch.mm(torch.ones(8, 8), torch.ones(8, 8))
        recorder.end_step(number)
    return numbers


@pytest.mark.parametrize(
    ("requested", "num_epochs", "steps_per_epoch", "expected"),
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
def test_recorded_steps_are_in_one_epoch(
    tmp_path: Path, requested: StepRange, num_epochs: int, steps_per_epoch: int, expected: list[int]
) -> None:
    recorder = OperatorRecorder(requested, tmp_path / "trace.json.gz")
    recorder.plan(num_epochs, steps_per_epoch, on_gpu=False)
    assert record_steps(recorder, num_epochs * steps_per_epoch) == expected


def test_operators_are_sorted_by_own_time_and_phases_are_in_the_trace(tmp_path: Path) -> None:
    recorder = OperatorRecorder(StepRange(), tmp_path / "new" / "trace.json.gz")
    recorder.plan(1, 20, on_gpu=False)
    assert recorder.trace is None
    record_steps(recorder, 20)
    assert {operator.name: operator.calls for operator in recorder.operators}["aten::mm"] == 3
    assert "forward" not in {operator.name for operator in recorder.operators}
    times = [operator.self_cpu_ms for operator in recorder.operators]
    assert times == sorted(times, reverse=True)
    assert recorder.trace is not None
    events = json.loads(gzip.decompress(recorder.trace.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "forward" for event in events) == 3


def test_unwritable_trace_is_reported_but_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    recorder = OperatorRecorder(StepRange(), tmp_path / "file" / "trace.json.gz")
    recorder.plan(1, 20, on_gpu=False)
    record_steps(recorder, 20)
    assert isinstance(recorder.failure, OSError)
    assert recorder.trace is None
    assert recorder.operators

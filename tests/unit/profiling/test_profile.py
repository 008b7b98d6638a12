"""``profiler.json``, which the report draws, and log lines."""

import json
from pathlib import Path
from typing import Any

from classifier.profiling.operators import Operator
from classifier.profiling.profile import Profile, downsample, summary_lines, write_profile
from classifier.profiling.rules import evaluate
from support.profiles import profile, samples, steps


def written(folder: Path, measured: Profile, trace: Path | None = None) -> dict[str, Any]:
    write_profile(folder / "output" / "data" / "profiler.json", measured, trace)
    return json.loads((folder / "output" / "data" / "profiler.json").read_text())


def test_profile_has_all_values_that_the_report_draws(tmp_path: Path) -> None:
    measured = profile(
        samples=samples(3, cores=(40, 60), received=2.0, sent=3.0),
        steps=steps([0.5] * 120, data=[0.1] * 120),
        operators=(Operator("aten::convolution", 12.5, 0.0, 60),),
        num_images=3840,
    )
    content = written(tmp_path, measured, tmp_path / "output" / "profiler" / "trace.json.gz")
    assert content["phases"] == {
        "train": {
            "data": 12.0, "transfer": 0.0, "forward": 48.0, "backward": 0.0, "optimizer": 0.0, "checkpoint": 0.5,
            "other": 0.0,
        }
    }  # fmt: skip
    assert (content["initialization_s"], content["total_s"], content["images_per_s"]) == (10, 71, 64)
    assert content["steps"][7] == [
        7, 1, 0.5, {"data": 0.1, "transfer": 0.0, "forward": 0.4, "backward": 0.0, "optimizer": 0.0},
    ]  # fmt: skip
    assert content["utilisation"] == {
        "t_s": [10.0, 10.5, 11.0],
        "cpu_percent": [50.0] * 3,
        "cores": [[40.0] * 3, [60.0] * 3],
        "iowait_percent": [0.0] * 3,
        "memory_percent": [20.0] * 3,
        "disk_read_bytes_s": [0.0] * 3,
        "disk_write_bytes_s": [0.0] * 3,
        "network_bytes_s": [5.0] * 3,
        "gpu_percent": [],
        "gpu_memory_percent": [],
    }
    assert content["operators"] == [
        {"name": "aten::convolution", "self_cpu_ms": 12.5, "self_cuda_ms": 0.0, "calls": 60}
    ]
    assert content["trace"] == "../profiler/trace.json.gz"


def test_a_long_training_is_downsampled(tmp_path: Path) -> None:
    content = written(tmp_path, profile(samples=samples(5000, gpus=(50.0, 70.0), gpu_memory=(10.0, 30.0)),
                                        steps=steps([0.1] * 9000)))  # fmt: skip
    numbers = [row[0] for row in content["steps"]]
    assert (len(numbers), numbers[0], numbers[-1]) == (2000, 0, 8999)
    series = content["utilisation"]
    assert {len(series[name]) for name in series if name != "cores"} == {600}
    assert (series["gpu_percent"][0], series["gpu_memory_percent"][0]) == (60, 20)


def test_profile_without_measurements_is_written(tmp_path: Path) -> None:
    empty = profile(samples=[], steps=steps([]), num_images=0, checkpoint_s=0.0)
    content = written(tmp_path, empty)
    assert (content["phases"], content["steps"], content["trace"], content["images_per_s"]) == ({}, [], None, 0)
    assert list(summary_lines(empty, evaluate(empty))) == []


def test_summary_has_the_shares_of_phases_and_advice() -> None:
    measured = profile(steps=steps([0.5] * 119 + [0.5], data=[0.2] * 120), checkpoint_s=0.0)
    first, second, *fired = summary_lines(measured, evaluate(measured))
    assert first.startswith("data wait 40 % · to device 0 % · forward 60 % · ")
    assert first.endswith(" of training; 64 photos/s")
    assert second == "before the first step 10.0 s, train 60.0 s"
    (line,) = fired
    assert line.startswith("Dataloader: training waited for photos in 40 % of its time; 2 threads decode on 2 cores. ")


def test_downsampling_keeps_the_first_and_last_item() -> None:
    assert downsample(range(3), 5) == range(3)
    assert list(downsample(range(101), 5)) == [0, 25, 50, 75, 100]

"""Jobs with ``profile=true`` or ``profilerconfig.json``: outputs, log lines, and an unchanged artifact."""

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from classifier.contract.findings import read_findings
from classifier.contract.paths import Paths
from support.drawing import write_classes
from support.jobs import Job, Platform, run_shared
from support.profiles import aws_rules, read_frames


@pytest.fixture
def channels(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_classes(tmp_path / name, seed=seed) for seed, name in enumerate(("train", "validation", "test"))
    }


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A training of three epochs with ``profile=true``."""
    folder = tmp_path_factory.mktemp("profiled")
    channels = {
        name: write_classes(folder / name, seed=seed) for seed, name in enumerate(("train", "validation", "test"))
    }
    return run_shared(folder / "opt_ml", channels, profile="true", epochs="3")


def read_profile(job: Job) -> dict[str, Any]:
    return json.loads((job.paths.output_data / "profiler.json").read_text(encoding="utf-8"))


def artifact(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.model.iterdir()}


def test_profile_has_phases_steps_operators_and_findings(profiled: Job) -> None:
    job = profiled
    assert (job.exit_code, job.failure) == (0, None)
    assert "warning" not in job.log.lower(), job.log
    profile = read_profile(job)
    assert set(profile["phases"]) == {"train", "validation", "test"}
    train = profile["phases"]["train"]
    assert set(train) == {"data", "transfer", "forward", "backward", "optimizer", "checkpoint", "other"}
    assert all(train[name] > 0 for name in ("data", "forward", "backward", "optimizer", "checkpoint"))
    assert [row[:2] for row in profile["steps"]] == [[number, 1 + number // 3] for number in range(9)]
    assert sum(train.values()) + profile["initialization_s"] <= profile["total_s"]
    assert profile["images_per_s"] > 0
    assert any(row["name"].startswith("aten::") and row["self_cpu_ms"] > 0 for row in profile["operators"])
    findings = read_findings(job.paths.output_data / "profiler_findings.json")
    assert {finding.rule for finding in findings} == set(aws_rules())
    printed = [line for line in job.log.splitlines() if line.startswith("profiler ")]
    assert printed[0].startswith("profiler    data wait ")
    assert len(printed) == 2 + sum(finding.outcome == "fired" for finding in findings)
    assert not any(thread.name == "profiler" for thread in threading.enumerate())


def test_smdebug_reads_the_files_and_the_trace_has_all_phases(profiled: Job) -> None:
    folder = profiled.paths.output_data / "profiler"
    frames = read_frames(folder)
    system, framework = frames.get_all_system_metrics(), frames.get_all_framework_metrics()
    assert {"CPUUtilization", "I/OWaitPercentage"} <= set(system["dimension"])
    assert "MemoryUsedPercent" in set(system["system_metric"])
    train = framework[framework["process"] == "Step:ModeKeys.TRAIN"]
    assert sorted(train["step"]) == list(range(9))
    (system_metrics, _) = frames.get_profiler_data_by_step(0, 8)
    assert len(system_metrics) <= len(system)
    trace = profiled.paths.output_data / read_profile(profiled)["trace"]
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"data", "transfer", "forward", "backward", "optimizer"} <= names
    assert sum(event.get("name") == "forward" and event["ph"] == "X" for event in events) == 3


@pytest.mark.slow
def test_profiling_does_not_change_the_artifact(platform: Platform, channels: dict[str, Path]) -> None:
    plain = platform.train(channels, epochs="3", augmentation="strong")
    before = artifact(plain.paths)
    assert not (plain.paths.output_data / "profiler.json").exists()
    platform.train(channels, epochs="3", augmentation="strong", profile="true")
    assert (platform.paths.output_data / "profiler.json").exists()
    assert artifact(platform.paths) == before


def test_training_with_a_frozen_backbone_is_profiled(platform: Platform, channels: dict[str, Path]) -> None:
    first = platform.train(channels, model="mobilenet_v3_small")
    pretrained = first.paths.model.rename(platform.paths.base.with_name("pretrained"))
    job = platform.train(
        {**channels, "pretrained": pretrained},
        model="mobilenet_v3_small",
        pretrained="true",
        freeze="backbone",
        augmentation="flip",
        profile="true",
    )
    assert job.exit_code == 0
    assert "warning" not in job.log.lower(), job.log
    assert len(read_profile(job)["steps"]) == 3


def test_profilerconfig_selects_folder_and_steps(platform: Platform, channels: dict[str, Path]) -> None:
    platform.lay_out(channels, {"epochs": "2"})
    parameters = {
        "ProfilerEnabled": "true",
        "LocalPath": "/opt/ml/output/measured",
        "DetailedProfilingConfig": '{"StartStep": 1, "NumSteps": 2}',
    }
    content = {"ProfilingIntervalInMilliseconds": 200, "ProfilingParameters": parameters}
    platform.write_config("profilerconfig.json", json.dumps(content))
    job = platform.run()
    folder = job.paths.base / "output" / "measured"
    assert {path.name for path in folder.iterdir()} == {"framework", "system", "trace.json.gz"}
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "forward" and event["ph"] == "X" for event in events) == 2
    assert read_profile(job)["trace"] == "../measured/trace.json.gz"


@pytest.mark.parametrize(
    "content", ['{"ProfilingParameters": {"ProfilerEnabled": "false"}}', '{"DisableProfiler": true}']
)
def test_profiler_can_be_disabled(platform: Platform, channels: dict[str, Path], content: str) -> None:
    platform.lay_out(channels)
    platform.write_config("profilerconfig.json", content)
    job = platform.run()
    assert job.exit_code == 0
    assert not (job.paths.output_data / "profiler.json").exists()
    assert "profiler " not in job.log


def test_unwritable_profile_is_a_warning_and_the_job_succeeds(
    platform: Platform, channels: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    platform.lay_out(channels)
    content = {"ProfilingParameters": {"LocalPath": str(tmp_path / "file")}}
    platform.write_config("profilerconfig.json", json.dumps(content))
    job = platform.run()
    assert (job.exit_code, job.failure) == (0, None)
    warnings = [line for line in job.log.splitlines() if line.startswith("warning: ")]
    incomplete = {line.partition("profile is incomplete, ")[2].partition(":")[0] for line in warnings}
    assert incomplete == {"operators", "steps", "system samples"}
    assert read_profile(job)["phases"]["train"]["forward"] > 0, "measurements that need no folder must be reported"
    assert (job.paths.model / "model.safetensors").exists()
    assert "test:accuracy" in job.metrics


def test_job_with_invalid_photos_fails_and_stops_the_sampler(platform: Platform, channels: dict[str, Path]) -> None:
    for photo in channels["train"].rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    job = platform.train(channels, profile="true")
    assert job.exit_code == 1
    assert not any(thread.name == "profiler" for thread in threading.enumerate())

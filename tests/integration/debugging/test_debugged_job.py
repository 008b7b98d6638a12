"""The debugger in complete training jobs."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from classifier.contract.findings import read_findings
from classifier.debugging.library import ModeKeys, create_trial
from support.jobs import Job, Platform

EVERYTHING = {
    "S3OutputPath": "s3://a-bucket/debug",
    "LocalPath": "/opt/ml/output/tensors",
    "HookParameters": {"save_interval": "1"},
    "CollectionConfigurations": [
        {"CollectionName": "losses"},
        {"CollectionName": "weights", "CollectionParameters": {"reductions": "l2_norm,mean"}},
        {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "2"}},
        {"CollectionName": "squeezed", "CollectionParameters": {"include_regex": r"squeeze_activation_output"}},
    ],
}


def artifact(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in job.paths.model.rglob("*") if path.is_file()}


def tensors(job: Job) -> Any:
    folders = (job.paths.base / "output" / "tensors", job.paths.output_data / "tensors")
    return create_trial(str(next(folder for folder in folders if folder.is_dir())))


def train(platform: Platform, data: Path, config: object | None, **hyperparameters: str) -> Job:
    platform.lay_out({"train": data}, hyperparameters)
    if config is not None:
        platform.write_config("debughookconfig.json", json.dumps(config))
    return platform.run()


def test_artifact_is_byte_identical_with_and_without_the_debugger(platform: Platform, image_folder: Path) -> None:
    without = train(platform, image_folder, None, precision="bf16")
    expected, metrics = artifact(without), without.metrics
    debugged = train(platform, image_folder, EVERYTHING, precision="bf16")
    assert tensors(debugged).steps(mode=ModeKeys.TRAIN)
    assert artifact(debugged) == expected
    assert debugged.metrics == metrics


def test_configuration_is_applied_in_bf16_and_under_a_relocated_root(platform: Platform, image_folder: Path) -> None:
    job = train(platform, image_folder, EVERYTHING, precision="bf16")
    assert job.exit_code == 0, job.log
    assert "warning" not in job.log
    trial = tensors(job)
    assert trial.tensor("gradient/SqueezeNet_classifier.1.weight").steps(mode=ModeKeys.TRAIN) == [0, 2]
    squeezed = trial.tensor("features.3.squeeze_activation_output_0")
    assert squeezed.value(0, mode=ModeKeys.TRAIN).dtype == "float32"
    assert trial.steps(mode=ModeKeys.EVAL)


def test_debug_true_writes_findings_series_and_a_summary(platform: Platform, image_folder: Path) -> None:
    job = train(platform, image_folder, None, debug="true", epochs="2")
    # Where the platform does not take part, they come home in output.tar.gz.
    assert tensors(job).steps(mode=ModeKeys.TRAIN)
    assert tensors(job).path == str(job.paths.output_data / "tensors")
    assert not (job.paths.base / "output" / "tensors").exists()
    assert job.exit_code == 0, job.log
    assert "warning" not in job.log
    assert len([line for line in job.log.splitlines() if line.startswith("debugger ") and " rules: " in line]) == 1
    findings = read_findings(job.paths.output_data / "debugger_findings.json")
    series = json.loads((job.paths.output_data / "debugger_series.json").read_text(encoding="utf-8"))
    summary = json.loads((job.paths.output_data / "debugger.json").read_text(encoding="utf-8"))
    assert {finding.rule for finding in findings} >= {"LossNotDecreasing", "VanishingGradient", "DeadRelu"}
    assert len(series["loss"]["train"]) == summary["steps"]["train"] > 0
    with (job.paths.output_data / "history.csv").open(encoding="utf-8") as file:
        validation = [float(row["validation:loss"]) for row in csv.DictReader(file)]
    assert [value for _, value in series["loss"]["validation"]] == pytest.approx(validation, rel=1e-4)
    assert series["gradient_norm"].keys() == series["update_ratio"].keys()


def test_only_the_head_is_saved_with_a_frozen_backbone(platform: Platform, image_folder: Path, tmp_path: Path) -> None:
    first = train(platform, image_folder, None)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes((first.paths.model / "model.safetensors").read_bytes())
    platform.lay_out(
        {"train": image_folder, "pretrained": weights},
        {"pretrained": "true", "freeze": "backbone", "augmentation": "none", "debug": "true"},
    )
    job = platform.run()
    assert job.exit_code == 0, job.log
    assert "warning" not in job.log
    assert tensors(job).tensor_names(collection="weights") == ["SqueezeNet_classifier.1.weight"]


def test_rule_of_debug_stop_stops_the_job_and_saves_the_model(platform: Platform, image_folder: Path) -> None:
    job = train(platform, image_folder, None, debug_stop="Confusion, WeightUpdateRatio", lr="10", epochs="9")
    assert job.exit_code == 0, job.log
    assert "stopped     by the rule WeightUpdateRatio: a step changes the weights" in job.log
    assert "epoch   2/9" not in job.log
    assert (job.paths.model / "model.safetensors").is_file()
    assert "debugger    diagnosis: The learning rate is too high. Try: a smaller lr" in job.log


def test_unknown_rule_is_an_error_with_a_suggestion(platform: Platform, image_folder: Path) -> None:
    job = train(platform, image_folder, None, debug_stop="LossNotDecrease")
    assert job.exit_code == 1
    assert "debug_stop='LossNotDecrease': no rule 'LossNotDecrease' (did you mean 'LossNotDecreasing'?)" in str(
        job.failure
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"CollectionConfigurations": [{"CollectionName": "weights", "CollectionParameters": {"reductions": "median"}}]},
        {"CollectionConfigurations": [{"CollectionName": "mine"}]},
        {"HookParameters": {"save_interval": "often"}},
        {"HookParameters": {"include_regex": "("}},
        {"LocalPath": "/proc/nowhere"},
    ],
)
def test_failing_debugger_is_a_warning_and_the_model_is_saved(
    platform: Platform, image_folder: Path, broken: dict[str, object]
) -> None:
    job = train(platform, image_folder, broken)
    assert job.exit_code == 0, job.log
    assert "warning: Debugger failed and was removed; the training is not affected" in job.log
    assert (job.paths.model / "model.safetensors").is_file()

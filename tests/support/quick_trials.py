"""Local tuning jobs whose trials are quick programs, with an accuracy that follows from the learning rate."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.local.client import LocalClient
from launch.training.request import TrainingSpec, training_request
from launch.tuning.local import LocalTuner
from launch.tuning.ranges import NumberRange, Ranges
from launch.tuning.request import TuningSpec
from launch.tuning.study import Study
from launch.tuning.table import TrialDisplay

NUM_EPOCHS = 4
# The accuracy after epoch n is n / 10 of the learning rate; above 0.9 the program fails as a training does.
PROGRAM = """
import json, os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
given = json.loads((base / "input/config/hyperparameters.json").read_text())
lr = float(given["lr"])
if lr > 0.9:
    (base / "output/failure").write_text("ConfigError: lr is too high\\nand more")
    sys.exit(1)
for epoch in range(int(given["epochs"])):
    print(f"epoch {epoch}  validation:accuracy={lr * (epoch + 1) / 10:.4f}  validation:loss=nan", flush=True)
    time.sleep(float(os.environ["EPOCH_S"]))
"""


def quick_spec(jobs: int, *, low: float = 0.1, high: float = 0.8, **settings: Any) -> TuningSpec:
    entry = {"Name": "lr", "MinValue": str(low), "MaxValue": str(high), "ScalingType": "Linear"}
    ranges = Ranges({"ContinuousParameterRanges": [entry]}, (NumberRange("lr", low, high, "Linear", False),))
    return TuningSpec(name="quick", ranges=ranges, jobs=jobs, **settings)


def quick_study(folder: Path, spec: TuningSpec) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    return Study.open(folder, spec, NUM_EPOCHS)


def quick_tuner(folder: Path, spec: TuningSpec, *, epoch_s: float = 0.0, epochs: int = NUM_EPOCHS) -> LocalTuner:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    # In a file: an entry point is a single line of at most 256 characters.
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    training = TrainingSpec(
        job_name="trial",
        image="local",
        role="arn:aws:iam::000000000000:role/local",
        channels={"train": (folder / "photos").as_uri()},
        output=(folder / "artifacts").as_uri(),
        environment={"EPOCH_S": str(epoch_s)},
    )

    def request(name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        given = {**parameters, "epochs": str(epochs)}
        made = training_request(replace(training, job_name=name, hyperparameters=given))
        made["AlgorithmSpecification"]["ContainerEntrypoint"] = [sys.executable, str(program)]
        return made

    client = LocalClient(folder / "sagemaker")

    def start(name: str, parameters: Mapping[str, str]) -> None:
        client.create_training_job(**request(name, parameters))

    display = TrialDisplay(spec.metric, spec.ranges.names, spec.num_jobs())
    return LocalTuner(client, quick_study(folder, spec), spec, start, display.show)

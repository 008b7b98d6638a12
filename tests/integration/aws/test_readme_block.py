"""The commands of README's section "On AWS", as written and in order, in a fresh clone, against a moto server.

What moto lacks is scripted: answers of endpoints, trials of tuning jobs, artifacts of jobs, and a Docker engine.
"""

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cloud_script import Cloud, scripted_cloud
from support.drawing import write_classes
from support.moto import free_port, moto_server
from support.readme import README, clone_project, commands

pytestmark = [pytest.mark.slow, pytest.mark.gate]

BUCKET = "my-bucket"
CLASSES = ["red", "green", "blue"]
PREDICTIONS = {
    "predictions": [{"label": name, "class_name": name, "probability": 1 / 3} for name in CLASSES],
    "labels": CLASSES,
    "class_names": CLASSES,
}
NAMES = {"Endpoint": "EndpointName", "EndpointConfig": "EndpointConfigName", "Model": "ModelName"}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A server that holds what these commands create and nothing else."""
    with moto_server(free_port()) as url, scripted_cloud(url) as cloud:
        yield cloud


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    clone_project(project)
    write_classes(project / "photos", photos_per_class=1, size=(32, 32))
    for channel in ("train", "test"):
        write_classes(project / "prepared" / channel, photos_per_class=1, size=(32, 32))
    return project


@pytest.fixture
def account(shell: Any) -> None:
    """The bucket and the role that the README names, and what moto lacks."""
    shell.client("s3").create_bucket(Bucket=BUCKET)
    shell.client("iam").create_role(RoleName="SageMakerRole", AssumeRolePolicyDocument="{}")
    cloud = shell.cloud
    cloud.answer("ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": [trial()]})
    cloud.answer("/endpoints/dogs/invocations", PREDICTIONS)
    artifact = {"Bucket": BUCKET, "Key": "models/dogs-1/output/model.tar.gz", "Body": b"x"}
    cloud.when("CreateTrainingJob", lambda: shell.client("s3").put_object(**artifact))


def trial() -> dict[str, Any]:
    objective = {"Type": "Maximize", "MetricName": "validation:accuracy", "Value": 0.9}
    return {
        "TrainingJobName": "dogs-001",
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"lr": "0.001"},
        "FinalHyperParameterTuningJobObjectiveMetric": objective,
    }


@pytest.mark.usefixtures("account", "docker")
def test_the_block_runs_and_leaves_only_what_it_says(shell: Any, clone: Path) -> None:
    typed = [one.text for one in commands(README.read_text(encoding="utf-8")) if one.section == "On AWS"]
    assert len(typed) >= 9, "README has another block"
    for number, text in enumerate(typed):
        # In one shell each, as an export has no other effect than on those after it.
        exports = [one for one in typed[:number] if one.startswith("export ")]
        if not text.startswith("export ") or "$(" in text:
            out = run(text, exports, clone, shell.environment)
            if "IMAGE_URI" in text:
                typed[number] = f"export IMAGE_URI={out}"
    assert left(shell) == {
        "Endpoints": [],
        "EndpointConfigs": [],
        "Models": [],
        "running jobs": [],
        "alarms": [],
        "scaling": [],
        "S3": ["my-bucket/dogs", "my-bucket/models"],
        "ECR": ["image-classifier"],
        "roles": ["SageMakerRole"],
    }


def run(text: str, exports: list[str], clone: Path, environment: dict[str, str]) -> str:
    """Run a command as a user at a terminal does who answers yes; return its output, or the value that it exports."""
    name = text.removeprefix("export ").partition("=")[0]
    shown = [f'echo -n "${name}"'] if text.startswith("export ") else []
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, b"y\n")
        done = subprocess.run(
            ["bash", "-ec", "\n".join([*exports, text, *shown])],
            cwd=clone,
            env=environment,
            stdin=terminal,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


def left(shell: Any) -> dict[str, list[str]]:
    """Return what the account holds."""
    sagemaker, s3 = shell.client("sagemaker"), shell.client("s3")
    found = {
        f"{kind}s": [one[key] for one in getattr(sagemaker, f"list_{snake(kind)}s")()[f"{kind}s"]]
        for kind, key in NAMES.items()
    }
    jobs = [
        *sagemaker.list_training_jobs()["TrainingJobSummaries"],
        *sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"],
        *sagemaker.list_transform_jobs()["TransformJobSummaries"],
    ]
    states = [value for job in jobs for name, value in job.items() if name.endswith("JobStatus")]
    assert len(states) == 3, "each job has left its record"
    targets = shell.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    objects = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    return {
        **found,
        "running jobs": [state for state in states if state not in ("Completed", "Stopped", "Failed")],
        "alarms": [one["AlarmName"] for one in shell.client("cloudwatch").describe_alarms()["MetricAlarms"]],
        "scaling": [one["ResourceId"] for one in targets["ScalableTargets"]],
        "S3": sorted({f"{BUCKET}/{one['Key'].partition('/')[0]}" for one in objects}),
        "ECR": [one["repositoryName"] for one in shell.client("ecr").describe_repositories()["repositories"]],
        "roles": [one["RoleName"] for one in shell.client("iam").list_roles()["Roles"]],
    }


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")

"""The commands of README's section "On AWS", as written and in order, on an account of their own.

Moto lacks the trials of a tuning job, writes no artifacts, and completes jobs at once; these are scripted.
"""

import glob
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.aws.conftest import Shell
from integration.aws.test_push_command import DOCKER, write_manifest
from support.cloud_script import Cloud, aws_environment, scripted_cloud
from support.drawing import write_classes
from support.moto import moto_server
from support.readme import README, ROOT, commands
from support.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.gate]

COMMANDS = [
    one.text.partition("  #")[0].strip() for one in commands(README.read_text("utf-8")) if one.section == "On AWS"
]
ARTIFACT = "models/{}/output/model.tar.gz"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder with the files that the commands name, and an account with the bucket and the role."""
    with moto_server(free_port()) as url, scripted_cloud(url) as cloud:
        shell = Shell(tmp_path, aws_environment(cloud.url, tmp_path), cloud)
        (tmp_path / "scripts").symlink_to(ROOT / "scripts")
        photos = write_classes(tmp_path / "photos", photos_per_class=2)
        for split in ("train", "validation", "test"):
            shutil.copytree(photos, tmp_path / "prepared" / split)
        shell.client("s3").create_bucket(Bucket="my-bucket")
        shell.client("iam").create_role(RoleName="SageMakerRole", AssumeRolePolicyDocument="{}")
        script_answers(cloud)
        try:
            yield shell
        finally:
            shell.close()


def script_answers(cloud: Cloud) -> None:
    trial = {
        "TrainingJobName": "dogs-001",
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/dogs-001",
        "CreationTime": 1.78e9,
        "TrainingStartTime": 1.78e9,
        "TrainingEndTime": 1.78e9 + 60,
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"lr": "0.01"},
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "validation:accuracy", "Value": 0.9},
    }
    cloud.answer("ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": [trial]})
    label = {"label": "disc", "class_name": "disc", "probability": 0.9}
    names = ["cross", "disc", "square"]
    cloud.answer("/endpoints/dogs/invocations", {"predictions": [label], "labels": names, "class_names": names})


def push_image(shell: Shell) -> str:
    """Run build_and_push with a Docker that registers a manifest; return what it prints."""
    shell.cloud.answer("GetDownloadUrlForLayer", {"downloadUrl": f"{shell.cloud.url}/config"})
    shell.cloud.answer("/config", {"os": "linux", "architecture": "amd64"})
    write_manifest(shell.folder, "application/vnd.docker.distribution.manifest.v2+json")
    program = shell.folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(folder=shell.folder, python=ROOT / ".venv/bin/python"), encoding="utf-8")
    program.chmod(0o755)
    shell.environment["PATH"] = f"{program.parent}:{shell.environment['PATH']}"
    # With a tag: a checkout under work has changes that no revision describes.
    done = shell.run("build_and_push", "v1")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(shell: Shell, text: str) -> str:
    """Run one command, and return its output."""
    python, script, *words = shlex.split(text)
    assert python == ".venv/bin/python"
    arguments = [
        path
        for word in words
        for path in (sorted(glob.glob(word, root_dir=shell.folder)) if "*" in word else [word])  # noqa: PTH207
    ]
    # Nobody is there to confirm.
    confirmed = ["--yes"] if script.endswith("teardown.py") else []
    done = shell.run(Path(script).stem, *arguments, *confirmed)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_commands_of_the_readme_leave_nothing(shell: Shell) -> None:
    outputs: dict[str, str] = {}
    for text in COMMANDS:
        if text.startswith("export "):
            name, _, value = text.removeprefix("export ").partition("=")
            shell.environment[name] = push_image(shell) if "build_and_push" in value else value
            continue
        outputs[Path(text.split()[1]).stem] = run(shell, text)
        for job in ("dogs-1", "dogs-001"):
            # As SageMaker writes them.
            shell.client("s3").put_object(Bucket="my-bucket", Key=ARTIFACT.format(job), Body=b"x")
    assert "cost        20 jobs × at most 6 h × $1.41 = at most $169" in outputs["tune"]
    assert "artifact    s3://my-bucket/models/dogs-1/output/model.tar.gz" in outputs["train"]
    assert "endpoint    dogs is in service" in outputs["deploy"]
    assert "correct     2 of 6, by folder name (33.3%)" in outputs["predict"]
    assert "output      s3://my-bucket/answers" in outputs["batch_transform"]
    assert "removed   endpoint dogs" in outputs["teardown"]
    assert left(shell) == []
    assert shell.run("teardown").stdout == "nothing is left\n"


def left(shell: Shell) -> list[str]:
    """Return the endpoints, configs and models that exist, and what still scales."""
    sagemaker = shell.client("sagemaker")
    scaling = shell.client("application-autoscaling")
    found: list[dict[str, Any]] = [
        *sagemaker.list_endpoints()["Endpoints"],
        *sagemaker.list_endpoint_configs()["EndpointConfigs"],
        *sagemaker.list_models()["Models"],
        *scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"],
    ]
    return [str(one) for one in found]

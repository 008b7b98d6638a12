"""``tune.py`` on AWS: a moto server over HTTP, with scripted trials, which moto does not have."""

import csv
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws.errors import CloudError
from classifier.errors import UserError
from launch.platform.clients import PlatformOptions
from launch.training.request import TrainingSpec
from launch.tuning.ranges import read_ranges
from launch.tuning.request import TuningSpec, tuning_request
from launch.tuning.watch import TuningFailedError, TuningWatch
from support.tune_command import read_until, start_tune, tune
from support.tuning_service import Script, tuning_service

CONTENT = {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1"}]}
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier:1"
PLACES = ("--channel", "train=s3://photos/dogs/train/", "--output", "s3://photos/models")
ARGUMENTS = (*PLACES, "--role", ROLE, "--image", IMAGE)


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(CONTENT), encoding="utf-8")
    return path


@pytest.fixture
def name() -> str:
    return f"dogs-{secrets.token_hex(4)}"


def describe(name: str) -> dict[str, Any]:
    with closing(boto3.client("sagemaker")) as client:
        return client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def trial(number: int, status: str, value: float | None = None, **more: object) -> dict[str, Any]:
    objective = {"Type": "Maximize", "MetricName": "validation:accuracy", "Value": value}
    return {
        "TrainingJobName": f"dogs-{number:03}",
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/dogs-{number:03}",
        "CreationTime": 1.78e9 + number,
        "TrainingJobStatus": status,
        "TunedHyperParameters": {"lr": str(number / 100)},
        **({"FinalHyperParameterTuningJobObjectiveMetric": objective} if value is not None else {}),
        **({"TrainingStartTime": 1.78e9, "TrainingEndTime": 1.78e9 + 60} if status != "InProgress" else {}),
        **more,
    }


@pytest.mark.usefixtures("aws")
def test_dry_run_shows_the_request_that_aws_receives(ranges: Path, name: str) -> None:
    arguments = [ranges, *ARGUMENTS, "--name", name, "--strategy", "random", "--jobs", 7, "--target", 0.9, "epochs=3"]
    shown = tune(*arguments, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    request = json.loads(shown.stdout)
    done = tune(*arguments, "--no-wait")
    assert done.returncode == 0, done.stderr
    assert f"job         {name}\n" in done.stdout
    cost = "cost        7 jobs × at most 6 h × $1.41 = at most $59.14 (ml.g5.xlarge; built-in table, us-east-1, 2026)\n"
    assert done.stdout.startswith(cost)
    unchecked = "not checked in a dry run: whether there are objects to read and buckets: photos\n"
    assert shown.stderr == unchecked + cost
    assert {"Key": "owner", "Value": "moto"} in request["Tags"]
    assert f"stop it:  .venv/bin/python scripts/tune.py --stop {name}" in done.stderr
    kept = describe(name)
    for part in ("HyperParameterTuningJobConfig", "TrainingJobDefinition"):
        assert kept[part] == request[part]


def test_dry_run_needs_no_account(ranges: Path, name: str, tmp_path: Path) -> None:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    nothing["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    done = tune(ranges, *ARGUMENTS, "--name", name, "--dry-run", environment=nothing)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Watched:
    """A tuning job whose trials a server scripts, and the folder of its results."""

    name: str
    folder: Path
    moto_url: str
    aws: pytest.MonkeyPatch
    request: Mapping[str, Any]

    def run(self, script: Script, *, create: bool = True, is_followed: bool = True) -> int:
        """Run what ``tune.py`` does once it has the request."""
        with tuning_service(self.moto_url, script) as url:
            self.aws.setenv("AWS_ENDPOINT_URL", url)
            platform = PlatformOptions().connect()
            watch = TuningWatch(platform, self.request, False, self.folder)
            try:
                return watch.run(create=create, is_followed=is_followed)
            finally:
                for client in (platform.sagemaker, platform.runtime, platform.logs):
                    client.close()


@pytest.fixture
def tuning(aws: pytest.MonkeyPatch, moto_url: str, ranges: Path, name: str, tmp_path: Path) -> Watched:
    training = TrainingSpec(
        job_name="trial",
        image=IMAGE,
        role=ROLE,
        channels={"train": "s3://photos/dogs/train/"},
        output="s3://photos/models",
        hyperparameters={"epochs": "3"},
    )
    spec = TuningSpec(name=name, ranges=read_ranges(ranges, {}), jobs=3)
    aws.setenv("LAUNCH_POLL_S", "0.01")
    return Watched(name, tmp_path / "results", moto_url, aws, tuning_request(spec, training))


def test_trials_are_followed_to_the_end(tuning: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    ended = [
        trial(1, "Completed", 0.8999999761581421),
        trial(2, "Failed", FailureReason="AlgorithmError: lr is too high"),
        trial(3, "Completed", 0.95),
    ]
    looks = [
        ("InProgress", []),
        ("InProgress", [trial(1, "InProgress"), trial(2, "InProgress")]),
        ("InProgress", [*ended[:2], trial(3, "InProgress")]),
        ("Completed", ended),
    ]
    assert tuning.run(Script(looks, num_throttled=1)) == 0
    out = capsys.readouterr().out
    assert "trial 1/3  done      validation:accuracy=0.9000  lr=0.01  60 s" in out
    assert "trial 2/3  failed    lr=0.02  60 s  · AlgorithmError: lr is too high" in out
    assert "ended       all 3 trials are done" in out
    assert "best        validation:accuracy=0.9500 by dogs-003: lr=0.03" in out
    assert "s3://photos/models/dogs-003/output/model.tar.gz" in out
    assert "next        .venv/bin/python scripts/deploy.py dogs-003\n" in out
    with (tuning.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["FinalObjectiveValue"] for row in rows] == ["0.9", "", "0.95"]
    assert json.loads((tuning.folder / "best_hyperparameters.json").read_text()) == {"epochs": "3", "lr": "0.03"}
    assert (tuning.folder / "tuning.html").is_file()


def test_failed_tuning_job_raises_with_its_reason(tuning: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script([("Failed", [trial(1, "Failed")])], failure="No training job succeeded after 5 attempts.")
    with pytest.raises(TuningFailedError, match="failed: No training job succeeded after 5 attempts"):
        tuning.run(script)
    assert "cost        about $0.023: 1 min of 1 × ml.g5.xlarge at $1.41 an hour (" in capsys.readouterr().out


def test_ctrl_c_leaves_the_job_running_and_prints_how_to_stop_it(
    ranges: Path, name: str, moto_url: str, aws: pytest.MonkeyPatch
) -> None:
    script = Script([("InProgress", [trial(1, "InProgress")])])
    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        with closing(start_tune(ranges, *ARGUMENTS, "--name", name)) as process:
            read_until(process, "running", 1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
    assert process.returncode == 130
    assert "tune: stopped watching; the job keeps running: 20 jobs × at most 6 h × $1.41 = at most $169" in errors
    assert f"stop it:  .venv/bin/python scripts/tune.py --stop {name}" in errors
    assert f"watch it: .venv/bin/python scripts/tune.py --watch {name}" in errors
    assert "StopHyperParameterTuningJob" not in script.operations


def test_credentials_that_expire_leave_the_job_running_and_print_how_to_stop_it(
    tuning: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CloudError, match="the credentials have expired"):
        tuning.run(Script([("InProgress", [])], expires_after=1))
    assert "tune: stopped watching; the job keeps running: 3 jobs × at most 6 h" in capsys.readouterr().err


@pytest.mark.usefixtures("aws")
def test_watching_a_job_that_does_not_exist_is_an_error() -> None:
    done = tune("--watch", "nojob")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("tune: tuning job nojob: ")


def test_existing_job_is_followed_and_stopped_by_its_name_alone(
    tuning: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning.run(Script([("InProgress", [])]), is_followed=False)
    assert f"watch it: .venv/bin/python scripts/tune.py --watch {tuning.name}" in capsys.readouterr().err
    script = Script([("InProgress", []), ("Completed", [trial(1, "Completed", 0.9)])])
    with tuning_service(tuning.moto_url, script) as url:
        tuning.aws.setenv("AWS_ENDPOINT_URL", url)
        watched = tune("--watch", tuning.name, "--results", tuning.folder)
        stopped = tune("--stop", tuning.name)
    assert watched.returncode == 0, watched.stderr
    assert "best        validation:accuracy=0.9000 by dogs-001: lr=0.01" in watched.stdout
    assert json.loads((tuning.folder / "best_hyperparameters.json").read_text()) == {"epochs": "3", "lr": "0.01"}
    assert script.operations.count("CreateHyperParameterTuningJob") == 0
    assert "StopHyperParameterTuningJob" in script.operations
    assert (stopped.returncode, stopped.stderr) == (0, f"tune: stopping {tuning.name} and its running trials\n")


def test_tuning_without_a_completed_trial_has_no_best(tuning: Watched) -> None:
    with pytest.raises(UserError, match="no trial has completed"):
        tuning.run(Script([("Stopped", [trial(1, "Stopped", 0.5)])]))
    assert (tuning.folder / "trials.csv").is_file()
    assert not (tuning.folder / "best_hyperparameters.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--role", "nobody"], "role nobody: there is no such role"),
        (["--output", "s3://nowhere/models"], "s3://nowhere: there is no such bucket"),
        (["--output", "models"], "--output models: has to be an address of the form s3://BUCKET/PREFIX"),
        (["--channel", "train=photos"], "upload"),
        (["--objective", "test:loss"], "--objective test:loss needs a channel 'test', and there is none: add one"),
        (["lr=0.1"], "lr is given as a fixed hyperparameter too"),
        (["epoch=1"], "unknown hyperparameter 'epoch' (did you mean 'epochs'?)"),
    ],
)
@pytest.mark.usefixtures("aws")
def test_mistakes_are_reported_in_one_line(ranges: Path, name: str, arguments: list[str], message: str) -> None:
    done = tune(ranges, *ARGUMENTS, "--name", name, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("tune: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.usefixtures("aws")
def test_name_that_is_taken_is_an_error(ranges: Path, name: str) -> None:
    first = tune(ranges, *ARGUMENTS, "--name", name, "--no-wait")
    assert first.returncode == 0, first.stderr
    second = tune(ranges, *ARGUMENTS, "--name", name, "--no-wait")
    assert second.returncode == 1
    assert "already exists" in second.stderr


SDK = """
import sys, types, boto3
from sagemaker.core.analytics import HyperparameterTuningJobAnalytics
session = types.SimpleNamespace(sagemaker_client=boto3.client("sagemaker"))
print(",".join(HyperparameterTuningJobAnalytics(sys.argv[1], session).dataframe().columns))
"""


@pytest.mark.slow
@pytest.mark.gate
def test_csv_has_the_sdks_columns_for_the_same_trials(tuning: Watched) -> None:
    script = Script([("Completed", [trial(1, "Completed", 0.9)])])
    tuning.run(script)
    with tuning_service(tuning.moto_url, script) as url:
        tuning.aws.setenv("AWS_ENDPOINT_URL", url)
        # In its own process: the SDK is slow to import, and warns.
        done = subprocess.run([sys.executable, "-c", SDK, tuning.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header = (tuning.folder / "trials.csv").read_text(encoding="utf-8").splitlines()[0]
    assert done.stdout.splitlines()[-1] == header

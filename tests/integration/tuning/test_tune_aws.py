"""``tune.py`` on AWS: a moto server over HTTP, with scripted trials, which moto does not have."""

import csv
import json
import secrets
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws.errors import CloudError
from classifier.errors import UserError
from launch.training.request import TrainingSpec
from launch.tuning.ranges import read_ranges
from launch.tuning.remote import RemoteTuning, TuningFailedError
from launch.tuning.request import TuningSpec
from support.tune_command import tune
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
    assert f"hyper-parameter-tuning-job/{name}" in done.stdout
    cost = "cost        7 jobs × at most 6 h × $1.41 = at most $59.14 (ml.g5.xlarge; built-in table, us-east-1, 2026)\n"
    assert done.stdout.startswith(cost)
    unchecked = "not checked in a dry run: whether there are objects to read and buckets: photos\n"
    assert shown.stderr == unchecked + cost
    assert {"Key": "owner", "Value": "moto"} in request["Tags"]
    assert f"stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name {name}" in done.stderr
    kept = describe(name)
    for part in ("HyperParameterTuningJobConfig", "TrainingJobDefinition"):
        assert kept[part] == request[part]


def test_dry_run_needs_no_account(ranges: Path, name: str, tmp_path: Path) -> None:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    nothing["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    done = tune(ranges, *ARGUMENTS, "--name", name, "--dry-run", environment=nothing)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tuning(aws: pytest.MonkeyPatch, ranges: Path, name: str, tmp_path: Path) -> RemoteTuning:  # noqa: ARG001
    training = TrainingSpec(
        job_name="trial",
        image="image",
        role=ROLE,
        channels={"train": "s3://photos/dogs/train/"},
        output="s3://photos/models",
        hyperparameters={"epochs": "3"},
    )
    spec = TuningSpec(name=name, ranges=read_ranges(ranges, {}), jobs=3)
    return RemoteTuning(spec, training, tmp_path / "results", poll_s=0.01)


def test_trials_are_followed_to_the_end(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    script = Script(looks, num_throttled=1)
    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        assert tuning.run() == 0
    out = capsys.readouterr().out
    assert "trial 1/3  done      validation:accuracy=0.9000  lr=0.01  60 s" in out
    assert "trial 2/3  failed    lr=0.02  60 s  · AlgorithmError: lr is too high" in out
    assert "best        validation:accuracy=0.9500 by dogs-003: lr=0.03" in out
    assert "cost        3 jobs × at most 6 h × $1.41 = at most $25.34 (ml.g5.xlarge; " in out
    # Failed trials are billed as well.
    assert "cost        about $0.07: 3 min of 1 × ml.g5.xlarge at $1.41 an hour (" in out
    assert "s3://photos/models/dogs-003/output/model.tar.gz" in out
    with (tuning.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["FinalObjectiveValue"] for row in rows] == ["0.9", "", "0.95"]
    assert json.loads((tuning.folder / "best_hyperparameters.json").read_text()) == {"epochs": "3", "lr": "0.03"}
    assert (tuning.folder / "tuning.html").is_file()


def test_failed_tuning_job_raises_with_its_reason(tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch) -> None:
    script = Script([("Failed", [trial(1, "Failed")])], failure="No training job succeeded after 5 attempts.")
    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(TuningFailedError, match="failed: No training job succeeded after 5 attempts"):
            tuning.run()


def test_ctrl_c_leaves_the_job_running_and_prints_how_to_stop_it(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    impatient = RemoteTuning(tuning.spec, tuning.training, tuning.folder, sleep=interrupt)
    script = Script([("InProgress", [])])
    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(KeyboardInterrupt):
            impatient.run()
    err = capsys.readouterr().err
    assert f"tuning job {tuning.spec.name} keeps running on AWS, at its cost" in err
    assert f"--name {tuning.spec.name} --watch" in err
    assert "StopHyperParameterTuningJob" not in script.operations


def test_credentials_that_expire_leave_the_job_running_and_print_how_to_stop_it(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script([("InProgress", [])])

    def expire(_: float) -> None:
        script.is_expired = True

    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(CloudError, match="the credentials have expired"):
            RemoteTuning(tuning.spec, tuning.training, tuning.folder, sleep=expire).run()
    assert f"tuning job {tuning.spec.name} keeps running on AWS, at its cost" in capsys.readouterr().err


@pytest.mark.usefixtures("aws")
def test_watching_a_job_that_does_not_exist_is_an_error(
    tuning: RemoteTuning, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CloudError, match=f"tuning job {tuning.spec.name}: "):
        tuning.run(create=False)
    assert capsys.readouterr().err == ""


def test_existing_job_can_be_followed(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script([("InProgress", []), ("Completed", [trial(1, "Completed", 0.9)])])
    with tuning_service(moto_url, script) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        tuning.run(wait=False)
        tuning.run(create=False)
    assert script.operations.count("CreateHyperParameterTuningJob") == 1
    assert "best        validation:accuracy=0.9000 by dogs-001" in capsys.readouterr().out


def test_tuning_without_a_completed_trial_has_no_best(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch
) -> None:
    with tuning_service(moto_url, Script([("Stopped", [trial(1, "Stopped", 0.5)])])) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(UserError, match="no trial has completed"):
            tuning.run()
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
def test_csv_has_the_sdks_columns_for_the_same_trials(
    tuning: RemoteTuning, moto_url: str, aws: pytest.MonkeyPatch
) -> None:
    with tuning_service(moto_url, Script([("Completed", [trial(1, "Completed", 0.9)])])) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        tuning.run()
        # In its own process: the SDK is slow to import, and warns.
        done = subprocess.run(
            [sys.executable, "-c", SDK, tuning.spec.name], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    header = (tuning.folder / "trials.csv").read_text(encoding="utf-8").splitlines()[0]
    assert done.stdout.splitlines()[-1] == header

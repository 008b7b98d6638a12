"""train.py on AWS, as a process against moto over HTTP.

Moto completes every job at once and has no StopTrainingJob and no failing job, so these answers are scripted.
"""

import io
import json
import signal
import tarfile
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from support.price_list import product

if TYPE_CHECKING:
    from support.cloud_script import Cloud

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"


def arguments(bucket: str, *more: str) -> list[str]:
    channel = f"train=s3://{bucket}/photos/train/"
    return ["--channel", channel, "--output", f"s3://{bucket}/models", "--role", ROLE, "--image", IMAGE, *more]


def test_training_job_is_created_followed_and_its_results_are_shown(shell: Any, cloud: "Cloud", bucket: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("report.html")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"<html>"))
    shell.client("s3").put_object(Bucket=bucket, Key="models/one/output/output.tar.gz", Body=packed.getvalue())
    logs = shell.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName="one/algo-1-170")
    # Moto drops events older than two weeks.
    event = {"timestamp": int(time.time() * 1000), "message": "epoch   1/3  validation:accuracy=0.9"}
    logs.put_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName="one/algo-1-170", logEvents=[event])
    cloud.answer("GetProducts", {"PriceList": [product("USE1-Train:ml.g5.xlarge", "2")]})
    times = {"BillableTimeInSeconds": 900, "TrainingTimeInSeconds": 3600}
    cloud.change("DescribeTrainingJob", lambda job: {**job, **times}, always=True)
    done = shell.run(
        "train", *arguments(bucket, "--name", "one", "--spot", "--tag", "team=dogs", "epochs=3", "lr=0.01")
    )
    assert done.returncode == 0, done.stderr
    source = f"AWS price list of {datetime.now(UTC):%Y-%m-%d}, us-east-1"
    limit = f"at most 6 h × $2.00 = at most $12.00 (ml.g5.xlarge; {source})"
    assert done.stdout.startswith(
        f"cost        {limit}; Spot capacity usually costs 70 to 90 % less\njob         one\n"
    )
    assert f"billed      900 s × $2.00 an hour = $0.50 ({source}); Spot saved 75% of 3,600 s\n" in done.stdout
    assert "status      Starting" in done.stdout
    assert "epoch   1/3  validation:accuracy=0.9" in done.stdout
    assert f"artifact    s3://{bucket}/models/one/output/model.tar.gz" in done.stdout
    assert f"reports     {shell.folder}/sagemaker/reports/one/report.html" in done.stdout
    assert [path.name for path in (shell.folder / "sagemaker" / "reports" / "one").iterdir()] == ["report.html"]
    sent = cloud.bodies("CreateTrainingJob")[0]
    assert sent["HyperParameters"] == {"epochs": "3", "lr": "0.01"}
    assert sent["EnableManagedSpotTraining"] is True
    assert sent["CheckpointConfig"]["S3Uri"] == f"s3://{bucket}/models/one/checkpoints"
    assert {"Key": "project", "Value": "image-classifier"} in sent["Tags"]
    assert {"Key": "team", "Value": "dogs"} in sent["Tags"]
    assert {"Key": "owner", "Value": "moto"} in sent["Tags"]


def test_reports_that_are_refused_leave_nothing(shell: Any, bucket: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("report.html"), io.BytesIO())
        link = tarfile.TarInfo("home")
        link.type, link.linkname = tarfile.SYMTYPE, "/"
        archive.addfile(link)
    shell.client("s3").put_object(Bucket=bucket, Key="models/evil/output/output.tar.gz", Body=packed.getvalue())
    done = shell.run("train", *arguments(bucket, "--name", "evil"))
    assert "output.tar.gz can't be unpacked: output.tar.gz: entry 'home' is refused: a link" in done.stderr
    assert not (shell.folder / "sagemaker" / "reports" / "evil").exists()


def test_refused_download_of_the_reports_is_reported(shell: Any, cloud: "Cloud", bucket: str) -> None:
    key = "models/private/output/output.tar.gz"
    cloud.refuse_query(f"/{bucket}/{key}", "AccessDenied")
    done = shell.run("train", *arguments(bucket, "--name", "private"))
    assert done.returncode == 0
    assert f"train: the reports were not downloaded: s3://{bucket}/{key}: access is denied" in done.stderr
    assert f"artifact    s3://{bucket}/models/private/output/model.tar.gz" in done.stdout


def test_dry_run_prints_the_request_and_sends_nothing(shell: Any, cloud: "Cloud") -> None:
    dry = shell.run(
        "train", *arguments("none", "--name", "dry", "--profiler", "--aws-debugger", "--dry-run", "epochs=3")
    )
    assert dry.returncode == 0
    request = json.loads(dry.stdout)
    assert request["TrainingJobName"] == "dry"
    assert request["DebugHookConfig"]["LocalPath"] == "/opt/ml/output/tensors"
    assert request["ProfilerConfig"]["S3OutputPath"] == "s3://none/models"
    assert cloud.changes() == []
    unchecked, cost = dry.stderr.splitlines()
    assert unchecked == "not checked in a dry run: whether there are objects to read and buckets: none"
    assert cost.startswith("cost        at most 6 h × $1.41 = at most $8.45 (ml.g5.xlarge; built-in table")


def put(shell: Any, bucket: str, *keys: str) -> list[str]:
    """Create objects below ``dogs/`` and return the options of a dry run on them."""
    for key in keys:
        shell.client("s3").put_object(Bucket=bucket, Key=f"dogs/{key}", Body=b"x")
    return [
        *("--data", f"s3://{bucket}/dogs", "--output", f"s3://{bucket}/m"),
        *("--role", ROLE, "--image", IMAGE, "--dry-run"),
    ]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (
            ["train/a/1.jpg", "test/a/1.jpg", "pretrained/w.pth", "report/report.html", ".cache/x"],
            {"train": "train", "test": "test", "pretrained": "pretrained"},
        ),
        (["Train/a/1.jpg", "val/a/1.jpg"], {"train": "Train", "validation": "val"}),
        (["train/0.tar", "train/classes.txt", "test/0.tar"], {"train": "train", "test": "test"}),
        (["0.tar", "1.tar", "classes.txt"], None),
        # A folder named like a channel that holds photos alone is a class.
        (["train/1.jpg", "bus/1.jpg", "car/1.jpg"], None),
        (["train/1.jpg", "train/.thumbnails/1.jpg", "bus/1.jpg"], None),
    ],
)
def test_channels_in_s3_are_found_as_in_a_local_folder(
    shell: Any, bucket: str, keys: list[str], names: dict[str, str] | None
) -> None:
    done = shell.run("train", *put(shell, bucket, *keys))
    assert done.returncode == 0, done.stderr
    channels = {
        one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"]
        for one in json.loads(done.stdout)["InputDataConfig"]
    }
    if names is None:
        assert channels == {"train": f"s3://{bucket}/dogs/"}
    else:
        assert channels == {channel: f"s3://{bucket}/dogs/{name}/" for channel, name in names.items()}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["train/a/1.jpg", "bus/1.jpg"], "contains channels (train/) and other folders beside them (bus/)"),
        (["test/a/1.jpg"], "contains test but no train"),
        (["train/1.jpg"], "train contains no class folders"),
        (["1.jpg"], "contains no folders; upload_data creates train/"),
    ],
)
def test_ambiguous_data_in_s3_is_an_error(shell: Any, bucket: str, keys: list[str], message: str) -> None:
    done = shell.run("train", *put(shell, bucket, *keys))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr
    assert done.stderr.startswith(f"train: s3://{bucket}/dogs")


def test_role_is_looked_up_by_name(shell: Any) -> None:
    shell.client("iam").create_role(RoleName="Trainer", AssumeRolePolicyDocument="{}")
    options = ["--channel", "train=s3://b/t/", "--output", "s3://b/m", "--image", IMAGE, "--dry-run"]
    request = json.loads(shell.run("train", *options, "--role", "Trainer").stdout)
    assert request["RoleArn"] == "arn:aws:iam::123456789012:role/Trainer"
    refused = shell.run("train", *options, "--role", "Nobody")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "there is no such role" in refused.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", "your user may not look roles up, which needs iam:GetRole; give the role's ARN instead"),
        ("Throttling", "AWS still throttles requests after several retries (Throttling): run the same command again"),
    ],
)
def test_role_that_iam_does_not_describe_is_an_error_that_says_what_to_do(
    shell: Any, cloud: "Cloud", bucket: str, code: str, message: str
) -> None:
    cloud.refuse_query("GetRole", code)
    given = arguments(bucket)
    given[given.index(ROLE)] = "Trainer"
    done = shell.run("train", *given, AWS_MAX_ATTEMPTS="1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"role Trainer: {message}" in done.stderr
    assert cloud.bodies("CreateTrainingJob") == []


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("--role", "no role is given, which SageMaker needs"),
        ("--output", "no --output is given: --output s3://BUCKET/PREFIX"),
        ("--image", "no image is given: --image URI"),
        ("--channel", "there is no channel train: --data PLACE"),
    ],
)
def test_error_about_a_missing_option_says_how_to_give_it(shell: Any, left_out: str, message: str) -> None:
    given = arguments("bucket")
    index = given.index(left_out)
    refused = shell.run("train", *given[:index], *given[index + 2 :])
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"train: {message}")
    assert refused.stderr.count("\n") == 1


def test_unknown_hyperparameter_is_an_error_before_anything_is_sent(shell: Any, cloud: "Cloud") -> None:
    refused = shell.run("train", *arguments("bucket", "learning_rat=0.1"))
    assert refused.returncode == 1
    assert "did you mean 'learning_rate'?" in refused.stderr
    assert cloud.requests == []


def test_error_about_a_local_folder_says_how_to_upload_it(shell: Any) -> None:
    refused = shell.run("train", *arguments("bucket", "--channel", f"test={shell.folder}"))
    assert "upload it first: .venv/bin/python scripts/upload_data.py" in refused.stderr


def test_missing_bucket_is_an_error_before_the_job_is_created(shell: Any) -> None:
    refused = shell.run("train", *arguments("no-such-bucket-anywhere"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("train: s3://no-such-bucket-anywhere: there is no such bucket; `aws s3 mb`")


def test_what_is_certain_to_fail_is_an_error_before_the_job_is_created(shell: Any, cloud: "Cloud", bucket: str) -> None:
    s3 = shell.client("s3")
    far = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=f"far-{bucket}"[:63], CreateBucketConfiguration=far)
    for key in ("test/a/1.jpg", "test2/a/1.jpg"):
        s3.put_object(Bucket=bucket, Key=f"photos/{key}", Body=b"x")
    for given, message in (
        (["--channel", f"test=s3://{bucket}/none/"], f"s3://{bucket}/none/: there are no objects"),
        (
            ["--channel", f"test=s3://{bucket}/photos/test"],
            f"test also means s3://{bucket}/photos/test2/: end",
        ),
        (
            ["--output", f"s3://far-{bucket}"[:68]],
            "is in eu-west-1, and the job would run in us-east-1",
        ),
        (["model=nope"], "unknown model 'nope'; `train --models` lists all 80"),
    ):
        refused = shell.run("train", *arguments(bucket, *given))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert message in refused.stderr
    assert cloud.bodies("CreateTrainingJob") == []
    fine = shell.run("train", *arguments(bucket, "--channel", f"test=s3://{bucket}/photos/test/", "--name", "fine"))
    assert fine.returncode == 0, fine.stderr


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("AWS_DEFAULT_REGION", "no region is set: give --region, or set AWS_DEFAULT_REGION"),
        ("AWS_ACCESS_KEY_ID", "no AWS credentials are set: run `aws configure`"),
    ],
)
def test_missing_region_or_credentials_are_named(shell: Any, bucket: str, removed: str, message: str) -> None:
    del shell.environment[removed]
    if removed == "AWS_ACCESS_KEY_ID":
        del shell.environment["AWS_SECRET_ACCESS_KEY"]
    refused = shell.run("train", *arguments(bucket))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert message in refused.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ResourceLimitExceeded", "https://console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas"),
        ("ExpiredTokenException", "the credentials have expired: renew them"),
        ("AccessDeniedException", "access is denied: no; add this action to the policies"),
        ("ValidationException", "ValidationException: no"),
    ],
)
def test_errors_of_aws_are_explained(shell: Any, cloud: "Cloud", bucket: str, code: str, message: str) -> None:
    cloud.refuse("CreateTrainingJob", code)
    refused = shell.run("train", *arguments(bucket, "--name", "refused"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("train: training job refused: ")
    assert message in refused.stderr


def test_throttled_requests_are_retried(shell: Any, cloud: "Cloud", bucket: str) -> None:
    cloud.refuse("CreateTrainingJob", "ThrottlingException", times=2)
    cloud.refuse("DescribeTrainingJob", "ThrottlingException", times=2)
    done = shell.run("train", *arguments(bucket, "--name", "throttled"))
    assert done.returncode == 0, done.stderr
    assert len(cloud.bodies("CreateTrainingJob")) == 3


def test_failed_job_is_reported_with_its_reason_and_the_end_of_its_log(shell: Any, cloud: "Cloud", bucket: str) -> None:
    failed = {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": "DataError: no photos\nmore"}
    cloud.change("DescribeTrainingJob", lambda job: {**job, **failed}, always=True)
    cloud.answer("DescribeLogStreams", {"logStreams": [{"logStreamName": "broken/algo-1-1"}]})
    cloud.answer("GetLogEvents", {"events": [{"message": "train failed"}], "nextForwardToken": "f/1"}, times=1)
    cloud.answer("GetLogEvents", {"events": [], "nextForwardToken": "f/1"}, times=1)
    cloud.answer("GetLogEvents", {"events": [{"message": "train failed"}], "nextForwardToken": "f/1"}, times=1)
    cloud.answer("GetLogEvents", {"events": [], "nextForwardToken": "f/1"})
    done = shell.run("train", *arguments(bucket, "--name", "broken"))
    assert done.returncode == 1
    assert "train: broken failed: DataError: no photos\n" in done.stderr
    assert done.stderr.endswith("last lines of its log:\n  train failed\n")


def _in_progress(job: dict[str, Any]) -> dict[str, Any]:
    return {**job, "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}


def test_ctrl_c_stops_following_and_prints_the_cost_and_how_to_stop_the_job(
    shell: Any, cloud: "Cloud", bucket: str
) -> None:
    cloud.change("DescribeTrainingJob", _in_progress, always=True)
    code, errors = shell.interrupt("train", "status", *arguments(bucket, "--name", "long", "--instances", "2"))
    assert code == 130
    assert "the job keeps running: 2 × ml.g5.xlarge, $2.82 an hour (built-in table" in errors
    assert "stop it:  .venv/bin/python scripts/train.py --stop long" in errors
    cloud.answer("StopTrainingJob", {})
    assert shell.run("train", "--stop", "long").returncode == 0
    assert cloud.bodies("StopTrainingJob") == [{"TrainingJobName": "long"}]


def test_ctrl_c_during_the_creation_says_that_the_job_runs(shell: Any, cloud: "Cloud", bucket: str) -> None:
    cloud.change("DescribeTrainingJob", _in_progress, always=True)
    command = shell.start("train", *arguments(bucket, "--name", "cut"))
    cloud.when("CreateTrainingJob", lambda: command.send_signal(signal.SIGINT))
    out, errors = command.communicate()
    assert command.returncode == 130
    assert out.endswith("job         cut\n")
    assert "the job keeps running: 1 × ml.g5.xlarge" in errors
    assert "stop it:  .venv/bin/python scripts/train.py --stop cut" in errors


def test_reader_that_goes_ends_the_command_as_sigpipe_would(shell: Any, cloud: "Cloud", bucket: str) -> None:
    cloud.change("DescribeTrainingJob", _in_progress, always=True)
    command = shell.start("train", *arguments(bucket, "--name", "piped"))
    while not command.stdout.readline().startswith("job  "):
        pass
    command.stdout.close()
    command.join()
    assert command.returncode == 128 + signal.SIGPIPE
    assert "the job keeps running" in command.errors
    assert "Traceback" not in command.errors


@pytest.mark.parametrize("more", [(), ("--local",)])
def test_watching_a_job_that_does_not_exist_is_an_error(shell: Any, more: tuple[str, ...]) -> None:
    done = shell.run("train", "--watch", "nojob", *more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "train: training job nojob: ValidationException: " in done.stderr


def test_expired_credentials_stop_following_and_print_how_to_watch_the_job_again(
    shell: Any, cloud: "Cloud", bucket: str
) -> None:
    cloud.change("DescribeTrainingJob", _in_progress)
    cloud.refuse("DescribeTrainingJob", "ExpiredTokenException")
    done = shell.run("train", *arguments(bucket, "--name", "expired"))
    assert done.returncode == 1
    assert "the job keeps running" in done.stderr
    assert "train.py --watch expired" in done.stderr
    assert done.stderr.endswith(
        "training job expired: the credentials have expired: renew them, e.g. with `aws sso login`\n"
    )


def test_a_warm_pool_is_part_of_the_cost_and_can_be_ended(shell: Any, cloud: "Cloud", bucket: str) -> None:
    pool = {"WarmPoolStatus": {"Status": "Available"}}
    cloud.change("DescribeTrainingJob", lambda job: {**job, **pool}, always=True)
    done = shell.run("train", *arguments(bucket, "--name", "warm", "--keep-alive", "1800", "--max-run", "3600"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cost        at most 1.5 h × $1.41 = at most $2.11 (")
    assert "; 30 min of warm pool included\n" in done.stdout
    assert "warm pool   1 × ml.g5.xlarge, $1.41 an hour (built-in table" in done.stdout
    assert "), for at most 30 min\n" in done.stdout
    end = "aws sagemaker update-training-job --training-job-name warm --resource-config KeepAlivePeriodInSeconds=0\n"
    assert end in done.stdout
    cloud.answer("UpdateTrainingJob", {"TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/warm"})
    removed = shell.run("teardown", "--name", "warm", "--yes")
    assert removed.stdout.startswith("pool      warm  Available  1 × ml.g5.xlarge, $1.41 an hour (built-in table")
    assert removed.stdout.endswith("removed   pool warm\n")
    end = {"TrainingJobName": "warm", "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}
    assert cloud.bodies("UpdateTrainingJob") == [end]

"""deploy.py, predict.py, batch_transform.py and teardown.py on AWS, as processes against moto over HTTP.

Moto's endpoints are in service at once, it has no UpdateEndpoint, its jobs never run and it does not infer, so these
answers are scripted.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from support.cloud_script import Updates
from support.drawing import write_classes

if TYPE_CHECKING:
    from support.cloud_script import Cloud

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
OPTIONS = ("--role", ROLE, "--image", IMAGE)
IN_SERVICE = {"EndpointName": "dogs", "EndpointStatus": "InService"}


@pytest.fixture
def artifact(shell: Any, bucket: str) -> str:
    shell.client("s3").put_object(Bucket=bucket, Key="job/model.tar.gz", Body=b"one")
    return f"s3://{bucket}/job/model.tar.gz"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, since they share moto's server."""
    return f"dogs-{abs(hash(request.node.nodeid)) % 10**8}"


def num_models(sagemaker: Any, name: str) -> int:
    """Count models; moto's ListModels ignores NameContains."""
    return sum(1 for one in sagemaker.list_models()["Models"] if name in one["ModelName"])


def deploy(shell: Any, artifact: str, name: str, *more: str) -> Any:
    return shell.run("deploy", artifact, "--name", name, *OPTIONS, *more)


def test_deploying_the_same_again_changes_nothing(shell: Any, cloud: "Cloud", artifact: str, name: str) -> None:
    done = deploy(shell, artifact, name, "--instance", "ml.g4dn.xlarge", "--max-instances", "3")
    assert done.returncode == 0, done.stderr
    assert f"endpoint    {name} is in service" in done.stdout
    assert "1 × ml.g4dn.xlarge: $0.736 an hour, $17.67 a day" in done.stderr
    assert "remove it with .venv/bin/python scripts/teardown.py" in done.stderr
    variant = cloud.bodies("CreateEndpointConfig")[0]["ProductionVariants"][0]
    assert variant["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"
    targets = shell.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert any(one["ResourceId"] == f"endpoint/{name}/variant/AllTraffic" for one in targets["ScalableTargets"])
    again = deploy(shell, artifact, name, "--instance", "ml.g4dn.xlarge", "--max-instances", "3")
    assert "already in service with this model and configuration" in again.stdout
    assert [len(cloud.bodies(f"Create{one}")) for one in ("Model", "EndpointConfig", "Endpoint")] == [1, 1, 1]


def test_new_artifact_at_the_same_address_updates_the_endpoint_in_place(
    shell: Any, cloud: "Cloud", artifact: str, bucket: str, name: str
) -> None:
    assert deploy(shell, artifact, name).returncode == 0
    shell.client("s3").put_object(Bucket=bucket, Key="job/model.tar.gz", Body=b"two")
    Updates(cloud)
    done = deploy(shell, artifact, name, "--update", "canary", "--alarm", "errors")
    assert done.returncode == 0, done.stderr
    sent = cloud.bodies("UpdateEndpoint")[0]
    assert sent["RetainAllVariantProperties"] is True
    assert sent["DeploymentConfig"]["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "errors"}]}
    policy = sent["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (policy["Type"], policy["CanarySize"]["Value"]) == ("CANARY", 10)


def test_failed_endpoint_is_reported_with_its_log_and_rolled_back(
    shell: Any, cloud: "Cloud", artifact: str, name: str
) -> None:
    failed = {"EndpointStatus": "Failed", "FailureReason": "The container did not pass the ping health check."}
    cloud.change("DescribeEndpoint", lambda one: {**one, **failed}, always=True)
    cloud.answer("DescribeLogStreams", {"logStreams": [{"logStreamName": "AllTraffic/i-1"}]})
    cloud.answer("GetLogEvents", {"events": [{"message": "no model.json"}], "nextForwardToken": "f/1"}, times=1)
    cloud.answer("GetLogEvents", {"events": [], "nextForwardToken": "f/1"})
    done = deploy(shell, artifact, name)
    assert done.returncode == 1
    assert (
        f"deploy: endpoint {name} failed: The container did not pass the ping health check.; its resources were deleted"
        in done.stderr
    )
    assert "no model.json" in done.stderr
    sagemaker = shell.client("sagemaker")
    assert sagemaker.list_endpoints(NameContains=name)["Endpoints"] == []
    assert sagemaker.list_endpoint_configs(NameContains=name)["EndpointConfigs"] == []
    assert num_models(sagemaker, name) == 0


def test_rolled_back_update_is_an_error_and_the_previous_model_keeps_serving(
    shell: Any, cloud: "Cloud", artifact: str, name: str
) -> None:
    assert deploy(shell, artifact, name).returncode == 0
    Updates(cloud, {"FailureReason": "alarm errors"})
    done = deploy(shell, artifact, name, "--env", "A=b", "--alarm", "errors")
    assert done.returncode == 1
    assert f"endpoint {name} failed: alarm errors; the previous model is still being served" in done.stderr
    sagemaker = shell.client("sagemaker")
    assert len(sagemaker.list_endpoint_configs(NameContains=name)["EndpointConfigs"]) == 1
    assert num_models(sagemaker, name) == 1
    assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("more", "present"),
    [
        (["--serverless", "--memory", "6144"], '"ServerlessConfig": {"MemorySizeInMB": 6144, "MaxConcurrency": 5}'),
        (["--asynchronous", "s3://bucket/answers"], '{"OutputConfig": {"S3OutputPath": "s3://bucket/answers"'),
        (["--capture", "s3://bucket/captured"], '"DestinationS3Uri": "s3://bucket/captured"'),
        (["--multi-model"], '"Mode": "MultiModel"'),
    ],
)
def test_each_kind_of_endpoint_is_deployed(
    shell: Any, cloud: "Cloud", artifact: str, name: str, more: list[str], present: str
) -> None:
    assert deploy(shell, artifact, name, *more).returncode == 0
    sent = json.dumps([cloud.bodies("CreateModel"), cloud.bodies("CreateEndpointConfig")])
    assert present in sent


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--serverless", "--capture", "s3://b/c"], "--capture can't be combined with --serverless"),
        (["--multi-model", "--instance", "ml.g5.xlarge"], "--multi-model is served on CPUs"),
        (["--update", "canary", "--instances", "2"], "--update canary needs at least one --alarm"),
        (["--min-instances", "0", "--max-instances", "2"], "--min-instances 0 needs --asynchronous"),
        (["--vpc-subnets", "subnet-1"], "--vpc-subnets and --security-groups go together"),
    ],
)
def test_conflicting_options_are_an_error(shell: Any, more: list[str], message: str) -> None:
    refused = deploy(shell, "s3://bucket/model.tar.gz", "dogs", *more)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert message in refused.stderr


def test_missing_artifact_is_an_error(shell: Any, bucket: str) -> None:
    refused = deploy(shell, f"s3://{bucket}/none.tar.gz", "dogs")
    assert refused.stderr == (
        f"deploy: s3://{bucket}/none.tar.gz: no such object; train.py prints an artifact's address\n"
    )


def test_dry_run_prints_all_requests_and_sends_nothing(shell: Any, cloud: "Cloud", artifact: str) -> None:
    dry = deploy(shell, artifact, "dogs", "--dry-run", "--max-instances", "2")
    assert list(json.loads(dry.stdout)) == [
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "UpdateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]
    assert cloud.changes() == []
    assert dry.stderr.startswith("cost        1 × ml.m5.large: $0.115 an hour, $2.76 a day, $82.80 in 30 days (")
    assert "; up to 2 instances as it scales, until it is removed\n" in dry.stderr


def document(*ranked: tuple[str, float]) -> dict[str, Any]:
    predictions = [{"label": name, "class_name": name, "probability": value} for name, value in ranked]
    names = ["cross", "disc", "square"]
    return {"predictions": predictions, "labels": names, "class_names": names}


def test_photos_are_labelled_in_the_terminal_and_drawn_in_green_and_red(
    shell: Any, cloud: "Cloud", tmp_path: Path
) -> None:
    photos = write_classes(tmp_path / "photos", photos_per_class=1)
    cloud.answer("DescribeEndpoint", IN_SERVICE)
    path = "/endpoints/dogs/invocations"
    cloud.answer(path, document(("cross", 0.9), ("disc", 0.1)), times=1)
    cloud.answer(path, document(("square", 0.6), ("disc", 0.4)), times=1)
    cloud.answer(path, document(("square", 0.7)), times=1)
    done = shell.run("predict", "dogs", str(photos))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cross/0.jpg   cross 90.0%  ·  disc 10.0%",
        "disc/0.jpg    square 60.0%  ·  disc 40.0%",
        "square/0.jpg  square 70.0%",
        "correct     2 of 3, by folder name (66.7%)",
        "grid        predictions.png",
    ]
    grid = Image.open(tmp_path / "predictions.png").convert("RGB")
    colours = {colour for _, colour in grid.getcolors(1 << 20) or []}
    assert (0, 120, 40) in colours
    assert (190, 20, 20) in colours


def test_rejected_photo_is_reported_and_the_others_are_classified(shell: Any, cloud: "Cloud", tmp_path: Path) -> None:
    photos = write_classes(tmp_path / "photos", photos_per_class=1, classes=("cross", "disc"))
    # A caller may be allowed to invoke an endpoint alone.
    cloud.refuse("DescribeEndpoint", "AccessDeniedException")
    path = "/endpoints/dogs/invocations"
    body = json.dumps({"error": {"type": "ImageError", "message": "the photo is cut off"}})
    refusal = {"__type": "ModelError", "message": "…", "OriginalStatusCode": 422, "OriginalMessage": body}
    cloud.answer(path, refusal, status=424, times=1)
    cloud.answer(path, document(("disc", 0.8)), times=1)
    done = shell.run("predict", "dogs", str(photos))
    assert done.returncode == 1
    assert "cross/0.jpg  rejected (422): the photo is cut off" in done.stderr
    assert "disc/0.jpg   disc 80.0%" in done.stdout


def test_folder_is_classified_by_a_transform_job(
    shell: Any, cloud: "Cloud", artifact: str, bucket: str, name: str
) -> None:
    options = ["--output", f"s3://{bucket}/answers", "--name", name, *OPTIONS]
    cloud.change("DescribeTransformJob", lambda one: {**one, "TransformJobStatus": "InProgress"})
    done = shell.run("batch_transform", artifact, f"s3://{bucket}/photos/", *options)
    assert done.returncode == 0, done.stderr
    assert f"output      s3://{bucket}/answers" in done.stdout
    assert cloud.bodies("CreateTransformJob")[0]["TransformInput"]["ContentType"] == "application/x-image"
    failed = {"TransformJobStatus": "Failed", "FailureReason": "ClientError: 1 of 3"}
    cloud.change("DescribeTransformJob", lambda one: {**one, **failed})
    options[options.index(name)] = f"{name}-2"
    done = shell.run("batch_transform", artifact, f"s3://{bucket}/photos/", *options)
    assert (done.returncode, done.stderr) == (1, f"batch_transform: {name}-2 failed: ClientError: 1 of 3\n")


@pytest.mark.slow
def test_resources_are_listed_with_their_price_and_removed_with_yes(shell: Any, artifact: str, name: str) -> None:
    assert deploy(shell, artifact, name, "--instances", "2", "--max-instances", "4").returncode == 0
    listed = shell.run("teardown", "--name", name)
    assert listed.returncode == 1
    assert f"endpoint  {name}" in listed.stdout
    assert "2 × ml.m5.large, $0.23 an hour" in listed.stdout
    assert "--yes removes without asking" in listed.stderr
    removed = shell.run("teardown", "--name", name, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert f"removed   endpoint {name}" in removed.stdout
    assert shell.run("teardown", "--name", name).stdout == f"nothing named {name} is left\n"
    targets = shell.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert not any(name in one["ResourceId"] for one in targets["ScalableTargets"])


def test_provisioned_concurrency_is_listed_as_a_cost(shell: Any, artifact: str, name: str) -> None:
    assert deploy(shell, artifact, name, "--serverless", "--provisioned", "2").returncode == 0
    listed = shell.run("teardown", "--name", name, "--dry-run")
    assert "per request, and day and night for 2 provisioned" in listed.stdout


def test_untagged_resources_are_left_alone(shell: Any, name: str) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz"}
    shell.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    assert shell.run("teardown", "--name", name, "--yes").stdout == f"nothing named {name} is left\n"


def test_a_running_training_is_listed_with_its_price_and_stopped(
    shell: Any, cloud: "Cloud", bucket: str, name: str
) -> None:
    options = ["--channel", f"train=s3://{bucket}/photos/train/", "--output", f"s3://{bucket}/m", *OPTIONS, "--no-wait"]
    assert shell.run("train", "--name", name, *options).returncode == 0
    summary = {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}",
        "CreationTime": time.time(),
        "TrainingJobStatus": "InProgress",
    }
    cloud.answer("ListTrainingJobs", {"TrainingJobSummaries": [summary]})
    cloud.answer("StopTrainingJob", {})
    done = shell.run("teardown", "--name", name, "--yes")
    assert f"training  {name}  InProgress 1 × ml.g5.xlarge, $1.41 an hour" in done.stdout
    assert f"stopping  training {name}" in done.stdout
    assert cloud.bodies("StopTrainingJob") == [{"TrainingJobName": name}]


def test_ctrl_c_while_deploying_prints_the_cost_and_how_to_remove_the_endpoint(
    shell: Any, cloud: "Cloud", artifact: str, name: str
) -> None:
    cloud.change("DescribeEndpoint", lambda one: {**one, "EndpointStatus": "Creating"}, always=True)
    code, errors = shell.interrupt("deploy", "endpoint", artifact, "--name", name, *OPTIONS)
    assert code == 130
    assert f"the creation of endpoint {name} was accepted, and it was Creating when last seen" in errors
    assert "1 × ml.m5.large: $0.115 an hour" in errors
    assert "remove it with .venv/bin/python scripts/teardown.py" in errors


def test_ctrl_c_during_a_transform_job_prints_its_cost_and_how_to_stop_it(
    shell: Any, cloud: "Cloud", artifact: str, name: str
) -> None:
    cloud.change("DescribeTransformJob", lambda one: {**one, "TransformJobStatus": "InProgress"}, always=True)
    options = ("--output", "s3://bucket/answers", "--name", name, *OPTIONS)
    code, errors = shell.interrupt("batch_transform", "job", artifact, "s3://bucket/photos/", *options)
    assert code == 130
    assert "the job keeps running: 1 × ml.m5.xlarge, $0.23 an hour" in errors
    assert f"batch_transform.py --stop {name}" in errors


def test_dry_run_of_a_transform_prints_its_requests_and_sends_nothing(
    shell: Any, cloud: "Cloud", artifact: str
) -> None:
    options = ("--output", "s3://bucket/answers", "--name", "dogs", "--concurrent", "7", "--kms-key", "key", *OPTIONS)
    dry = shell.run("batch_transform", artifact, "s3://bucket/photos/", *options, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    requests = json.loads(dry.stdout)
    assert list(requests) == ["CreateModel", "CreateTransformJob"]
    assert requests["CreateModel"]["PrimaryContainer"]["ModelDataUrl"] == artifact
    job = requests["CreateTransformJob"]
    assert job["ModelName"] == requests["CreateModel"]["ModelName"]
    assert (job["TransformJobName"], job["MaxConcurrentTransforms"]) == ("dogs", 7)
    assert job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://bucket/photos/"
    assert (job["TransformOutput"]["S3OutputPath"], job["TransformOutput"]["KmsKeyId"]) == (
        "s3://bucket/answers",
        "key",
    )
    assert cloud.changes() == []
    unchecked, cost = dry.stderr.splitlines(keepends=True)
    assert unchecked == "not checked in a dry run: whether there are objects to read and buckets: bucket\n"
    assert cost.startswith("cost        1 × ml.m5.xlarge, $0.23 an hour (")
    assert dry.stderr.endswith("), until all photos are answered; there is no time limit\n")


def test_dry_run_of_a_prediction_prints_its_requests_and_sends_nothing(
    shell: Any, cloud: "Cloud", tmp_path: Path
) -> None:
    photos = write_classes(tmp_path / "photos", photos_per_class=2)
    cloud.answer("DescribeEndpoint", IN_SERVICE)
    dry = shell.run("predict", "dogs", str(photos), "--num", "3", "--target-model", "a.tar.gz", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    requests = json.loads(dry.stdout)
    assert [Path(request.pop("Body")).parent.name for request in requests] == ["cross", "disc", "square"]
    common = {"EndpointName": "dogs", "ContentType": "application/x-image", "TargetModel": "a.tar.gz"}
    assert requests == [{**common, "Accept": "application/json;verbose"}] * 3
    assert [name for name, _ in cloud.requests] == ["DescribeEndpoint"]
    assert not (tmp_path / "predictions.png").exists()


def test_dry_run_of_a_teardown_lists_resources_and_removes_nothing(shell: Any, name: str) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz"}
    tags = [{"Key": "project", "Value": "image-classifier"}]
    sagemaker = shell.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=tags)
    dry = shell.run("teardown", "--name", name, "--yes", "--dry-run")
    assert (dry.returncode, dry.stdout.split()) == (0, ["model", name, "free"])
    assert num_models(sagemaker, name) == 1
    # Without a terminal and without --yes, nothing is removed either.
    refused = shell.run("teardown", "--name", name)
    assert (refused.returncode, num_models(sagemaker, name)) == (1, 1)
    assert "--yes removes without asking" in refused.stderr
    assert shell.run("teardown", "--name", name, "--yes").stdout.endswith(f"removed   model {name}\n")
    assert num_models(sagemaker, name) == 0

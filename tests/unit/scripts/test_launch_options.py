"""Options of the command line, resolved into specifications and requests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aws.request_check import RequestError
from classifier.errors import ConfigError, DataError, UserError
from launch.endpoint.options import EndpointOptions, ScalingOptions, check_options, endpoint_requests
from launch.endpoint.request import Capture, Serverless, Update
from launch.platform.clients import PlatformOptions
from launch.platform.models import artifact_version, resolve_artifact
from launch.platform.resources import LOCAL_ROLE, ContainerOptions, Security
from launch.terminal import parse_pairs, read_hyperparameters
from launch.training.options import TrainingOptions, check_training, training_spec
from launch.training.request import Monitoring, Resources, training_request
from launch.transform import TransformOptions, transform_requests

AWS = PlatformOptions(region="us-east-1")
CONTAINER = ContainerOptions(image="image", role="arn:aws:iam::123456789012:role/SageMaker")
TRAINING = TrainingOptions(
    platform=AWS,
    container=CONTAINER,
    name="job",
    channels={"train": "s3://bucket/train/"},
    output="s3://bucket/models/",
)
ENDPOINT = EndpointOptions(platform=AWS, name="dogs", container=CONTAINER)
ALARM = ("errors",)


def local(tmp_path: Path) -> PlatformOptions:
    return PlatformOptions(local=True, folder=tmp_path / "sagemaker")


def test_hyperparameters_of_the_command_line_override_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    file.write_text('{"epochs": 3, "model": "resnet18", "pretrained": false}', encoding="utf-8")
    values = read_hyperparameters(file, ["epochs=5", "notes=a=b"])
    assert values == {"epochs": "5", "model": "resnet18", "pretrained": "false", "notes": "a=b"}


@pytest.mark.parametrize("text", ["epochs", "=5"])
def test_malformed_pair_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form KEY=VALUE"):
        parse_pairs([text])


@pytest.mark.parametrize(("content", "message"), [("[]", "a JSON object of hyperparameters, not list"), ("{", "JSON")])
def test_malformed_hyperparameters_file_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "file.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_hyperparameters(tmp_path / "file.json", [])
    with pytest.raises(ConfigError, match="No such file"):
        read_hyperparameters(tmp_path / "none.json", [])


def test_training_options_become_a_spec() -> None:
    container = replace(CONTAINER, security=Security(kms_key="key"), environment={"A": "b"}, tags={"team": "dogs"})
    monitoring = Monitoring(save_interval=5)
    options = replace(TRAINING, container=container, resources=Resources(num_instances=3), monitoring=monitoring)
    spec = training_spec(replace(options, fast_file=True), {"epochs": "3", "debug": "true"})
    assert (spec.job_name, spec.image, spec.role) == ("job", CONTAINER.image, CONTAINER.role)
    assert (spec.output, spec.checkpoints, spec.input_mode) == ("s3://bucket/models", None, "FastFile")
    assert spec.hyperparameters == {"epochs": "3", "debug": "true"}
    assert spec.monitoring == Monitoring(save_interval=5)
    assert training_spec(options, {"profile": "true"}).monitoring == Monitoring(profiler=True, save_interval=5)
    assert (spec.security, spec.environment, spec.tags) == (Security(kms_key="key"), {"A": "b"}, {"team": "dogs"})
    assert spec.resources == Resources(num_instances=3)


@pytest.mark.parametrize("aws_debugger", [False, True])
def test_platform_takes_part_in_debugging_only_if_it_is_asked_to(aws_debugger: bool) -> None:
    options = replace(TRAINING, monitoring=Monitoring(debugger=True, profiler=True, aws_debugger=aws_debugger))
    for spec in (
        training_spec(options, {"epochs": "3"}),
        training_spec(
            replace(options, monitoring=Monitoring(aws_debugger=aws_debugger)), {"debug": "true", "profile": "true"}
        ),
    ):
        # The container debugs and profiles by itself.
        assert (spec.hyperparameters["debug"], spec.hyperparameters["profile"]) == ("true", "true")
        sent = training_request(spec).keys() & {"DebugHookConfig", "ProfilerConfig"}
        assert sent == ({"DebugHookConfig", "ProfilerConfig"} if aws_debugger else set())


def test_spot_training_saves_checkpoints_below_its_output_unless_told_where() -> None:
    spot = replace(TRAINING, resources=Resources(spot=True))
    assert training_spec(spot, {}).checkpoints == "s3://bucket/models/job/checkpoints"
    given = replace(spot, checkpoints="s3://bucket/other/checkpoints")
    assert training_spec(given, {}).checkpoints == "s3://bucket/other/checkpoints"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": Resources(max_wait_s=9)}, "--max-wait needs --spot"),
        ({"resources": Resources(spot=True, max_run_s=10, max_wait_s=9)}, "--max-wait 9 is less than --max-run 10"),
        ({"channels": {}}, "there is no channel train"),
        ({"channels": {"train": "photos"}}, "channel 'train': photos is on this machine; upload it first"),
        ({"output": None}, "no --output is given"),
    ],
)
def test_invalid_training_options_are_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training_spec(replace(TRAINING, **changes), {})


def test_wait_as_long_as_the_run_is_accepted() -> None:
    resources = Resources(spot=True, max_run_s=10, max_wait_s=10)
    assert training_spec(replace(TRAINING, resources=resources), {}).resources == resources


def test_local_training_uses_folders_and_needs_neither_image_nor_role(tmp_path: Path) -> None:
    for name in ("train/a", "validation/a", "extra"):
        (tmp_path / "data" / name if name != "extra" else tmp_path / name).mkdir(parents=True)
    options = TrainingOptions(
        platform=local(tmp_path), data=str(tmp_path / "data"), channels={"extra": str(tmp_path / "extra")}
    )
    spec = training_spec(options, {})
    assert (spec.image, spec.role) == ("local", LOCAL_ROLE)
    assert spec.channels == {
        "train": (tmp_path / "data" / "train").as_uri(),
        "validation": (tmp_path / "data" / "validation").as_uri(),
        "extra": (tmp_path / "extra").as_uri(),
    }
    assert spec.output == (tmp_path / "sagemaker" / "artifacts").as_uri()
    assert spec.job_name.startswith("image-classifier-2")
    with pytest.raises(DataError, match="channel 'extra': folder none does not exist"):
        training_spec(replace(options, channels={"extra": "none"}), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "my-bucket/x"}, r"^--output my-bucket/x: has to be an address of the form s3://BUCKET/PREFIX$"),
        ({"output": "file:///models"}, r"^--output file:///models: has to be"),
        ({"checkpoints": "state"}, r"^--checkpoints state: has to be an address of the form s3://BUCKET/PREFIX$"),
    ],
)
def test_remote_training_cannot_write_to_this_machine(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_training(replace(TRAINING, **changes), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"serverless": Serverless(), "instance_type": "ml.m5.large"},
            "--instance can't be combined",
        ),
        ({"serverless": Serverless(), "capture": Capture(place="s3://b/c")}, "--capture can't be combined"),
        ({"serverless": Serverless(), "scaling": ScalingOptions(max_instances=2)}, "--max-instances can't be combined"),
        (
            {"serverless": Serverless(), "container": ContainerOptions(security=Security(network_isolation=True))},
            "--network-isolation can't be combined",
        ),
        (
            {"serverless": Serverless(), "container": ContainerOptions(security=Security(subnets=("subnet-1",)))},
            "--vpc-subnets can't be combined",
        ),
        (
            {"serverless": Serverless(), "update": Update(strategy="canary", alarms=ALARM)},
            "--update can't be combined with --serverless",
        ),
        ({"serverless": Serverless(), "num_instances": 2}, "--instances can't be combined with --serverless"),
        (
            {"serverless": Serverless(), "container": ContainerOptions(security=Security(kms_key="key"))},
            "--kms-key can't be combined with --serverless",
        ),
        (
            {"update": Update(strategy="canary", alarms=ALARM), "num_instances": 1},
            "--update canary replaces a part of the instances",
        ),
        (
            {"update": Update(strategy="rolling", alarms=ALARM), "num_instances": 1},
            "--update rolling replaces a part of the instances",
        ),
        ({"multi_model": True, "instance_type": "ml.g5.xlarge"}, "--multi-model is served on CPUs"),
        ({"update": Update(strategy="canary"), "num_instances": 2}, "--update canary needs at least one --alarm"),
        ({"update": Update(alarms=ALARM * 11)}, "--alarm can be given 10 times at most"),
        (
            {"update": Update(strategy="rolling", percent=4, alarms=ALARM), "num_instances": 2},
            "--update-percent 4: from 5 to 50",
        ),
        (
            {"update": Update(strategy="canary", percent=51, alarms=ALARM), "num_instances": 2},
            "--update-percent 51: from 1 to 50",
        ),
        (
            {"update": Update(strategy="canary", percent=0, alarms=ALARM), "num_instances": 2},
            "--update-percent 0: from 1 to 50",
        ),
        ({"scaling": ScalingOptions(min_instances=1)}, "--min-instances needs --max-instances"),
        ({"scaling": ScalingOptions(min_instances=3, max_instances=2)}, "--max-instances has to be at least"),
        ({"scaling": ScalingOptions(max_instances=0)}, "--max-instances has to be at least"),
        ({"scaling": ScalingOptions(min_instances=0, max_instances=2)}, "--min-instances 0 needs --asynchronous"),
    ],
)
def test_conflicting_endpoint_options_are_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(replace(ENDPOINT, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update": Update(strategy="rolling", percent=5, alarms=ALARM * 10), "num_instances": 2},
        {"update": Update(strategy="canary", percent=1, alarms=ALARM), "scaling": ScalingOptions(max_instances=2)},
        {"update": Update(strategy="canary", percent=50, alarms=ALARM), "num_instances": 2},
        {"scaling": ScalingOptions(min_instances=2, max_instances=2)},
        {"scaling": ScalingOptions(min_instances=0, max_instances=2), "asynchronous": "s3://b/answers"},
        {"serverless": Serverless()},
    ],
)
def test_compatible_endpoint_options_are_accepted(changes: dict[str, Any]) -> None:
    check_options(replace(ENDPOINT, **changes))


def test_endpoint_names_change_with_contents_and_the_artifact() -> None:
    def names(options: EndpointOptions, version: str = "1") -> tuple[str, str]:
        requests = endpoint_requests(options, "s3://bucket/model.tar.gz", version)
        assert (
            requests["CreateEndpointConfig"]["ProductionVariants"][0]["ModelName"]
            == (requests["CreateModel"]["ModelName"])
        )
        assert requests["CreateEndpoint"]["EndpointConfigName"] == requests["UpdateEndpoint"]["EndpointConfigName"]
        return requests["CreateModel"]["ModelName"], requests["CreateEndpoint"]["EndpointConfigName"]

    model, config = names(ENDPOINT)
    assert names(ENDPOINT) == (model, config)
    other_model, other_config = names(ENDPOINT, "2")
    assert (other_model != model, other_config != config) == (True, True)
    same_model, other_config = names(replace(ENDPOINT, num_instances=2))
    assert (same_model == model, other_config != config) == (True, True)


@pytest.mark.parametrize(
    ("changes", "is_retained"),
    [
        ({}, True),
        ({"num_instances": 3}, False),
        # Autoscaling chooses the number of an endpoint that exists.
        ({"num_instances": 3, "scaling": ScalingOptions(max_instances=4)}, True),
    ],
)
def test_given_number_of_instances_replaces_that_of_the_endpoint(changes: dict[str, Any], is_retained: bool) -> None:
    requests = endpoint_requests(replace(ENDPOINT, **changes), "s3://bucket/model.tar.gz", "1")
    replaced = {one["VariantPropertyType"] for one in requests["UpdateEndpoint"]["ExcludeRetainedVariantProperties"]}
    assert ("DesiredInstanceCount" not in replaced) is is_retained
    assert "DataCaptureConfig" in replaced


def test_scaling_starts_at_one_instance_or_at_the_minimum() -> None:
    def minimum(scaling: ScalingOptions) -> object:
        requests = endpoint_requests(replace(ENDPOINT, scaling=scaling), "s3://bucket/model.tar.gz", "1")
        return requests.get("RegisterScalableTarget", {}).get("MinCapacity")

    assert minimum(ScalingOptions()) is None
    assert minimum(ScalingOptions(max_instances=4)) == 1
    assert minimum(ScalingOptions(min_instances=0, max_instances=4)) == 0


@pytest.mark.parametrize("minimum", [0, 1])
def test_endpoint_that_may_have_no_instances_gets_an_alarm_that_starts_one(minimum: int) -> None:
    scaling = ScalingOptions(min_instances=minimum, max_instances=4)
    options = replace(ENDPOINT, asynchronous="s3://bucket/answers", scaling=scaling)
    requests = endpoint_requests(options, "s3://bucket/model.tar.gz", "1")
    names = [one["PolicyName"] for one in requests["PutScalingPolicy"]]
    assert names == (["dogs-concurrency", "dogs-wake"] if minimum == 0 else ["dogs-concurrency"])
    assert ("PutMetricAlarm" in requests) == (minimum == 0)


def test_local_transform_takes_folders_and_a_remote_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos, output = str(tmp_path / "photos"), str(tmp_path / "answers")
    options = TransformOptions(platform=local(tmp_path), photos=photos, output=output)
    job = transform_requests(options, "file:///model.tar.gz", "1")["CreateTransformJob"]
    assert job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == (tmp_path / "photos").as_uri()
    assert job["TransformOutput"]["S3OutputPath"] == (tmp_path / "answers").as_uri()
    with pytest.raises(DataError, match="folder none does not exist"):
        transform_requests(replace(options, photos="none"), "file:///model.tar.gz", "1")
    remote = replace(options, platform=AWS, container=CONTAINER)
    with pytest.raises(ConfigError, match="is on this machine, but the job runs on AWS"):
        transform_requests(remote, "s3://bucket/model.tar.gz", "1")


def test_artifact_is_an_address_or_with_local_a_path(tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"one")
    here = local(tmp_path)
    assert resolve_artifact("s3://b/m.tar.gz", AWS) == "s3://b/m.tar.gz"
    assert resolve_artifact(str(archive), here) == archive.as_uri()
    # On AWS it is the name of a training job, which a check of the request does not ask for.
    assert resolve_artifact(str(archive), AWS.assuming()).startswith("s3://BUCKET/")
    version = artifact_version(archive.as_uri(), here)
    archive.write_bytes(b"other")
    assert artifact_version(archive.as_uri(), here) != version
    archive.unlink()
    with pytest.raises(UserError, match=r"model\.tar\.gz does not exist; train\.py prints an artifact's address"):
        artifact_version(archive.as_uri(), here)

"""Requests are checked as the service checks them, for every option of every command, before anything is sent."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aws.request_check import RequestError, _compile, check, faults, input_shape
from launch.platform.clients import PlatformOptions
from unit.scripts.test_help import load

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
TOPIC = "arn:aws:sns:us-east-1:123456789012:answers"
COMMON = {
    "--role": ("--role", "Trainer"),
    "--image": ("--image", IMAGE),
    "--tag": ("--tag", "team=dogs + cats"),
    "--env": ("--env", "A_1=two lines\nof text"),
    "--kms-key": ("--kms-key", "arn:aws:kms:us-east-1:123456789012:key/0a-1b"),
    "--vpc-subnets": ("--vpc-subnets", "subnet-1", "subnet-2", "--security-groups", "sg-1"),
    "--security-groups": ("--security-groups", "sg-1", "sg-2", "--vpc-subnets", "subnet-1"),
    "--network-isolation": ("--network-isolation",),
    "--region": ("--region", "eu-central-1"),
    "--folder": ("--folder", "jobs"),
    "--dry-run": (),
}
TRAINING = {
    **COMMON,
    "--data": ("--data", "s3://bucket/dogs"),
    "--channel": ("--channel", "pretrained=s3://bucket/weights/"),
    "--output": ("--output", "s3://bucket/models/"),
    "--local": None,
    "--hyperparameters": ("--hyperparameters", "best.json"),
    "--instance": ("--instance", "ml.p5.48xlarge"),
    "--instances": ("--instances", "3"),
    "--volume": ("--volume", "200"),
    "--max-run": ("--max-run", "432000"),
    "--fast-file": ("--fast-file",),
    "--spot": ("--spot",),
    "--max-wait": ("--spot", "--max-run", "10", "--max-wait", "20"),
    "--retry": ("--retry", "3"),
    "--encrypt-between-hosts": ("--encrypt-between-hosts",),
    "--no-wait": ("--no-wait",),
}
# The arguments that give each option a value; None for options with which no request is built from the others.
OPTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "train": {
        **TRAINING,
        "--name": ("--name", "dogs-1"),
        "--checkpoints": ("--checkpoints", "s3://bucket/state"),
        "--interrupt-after": None,
        "--keep-alive": ("--keep-alive", "1800"),
        "--remote-debug": ("--remote-debug",),
        "--debugger": ("--debugger",),
        "--aws-debugger": ("--aws-debugger", "--profiler"),
        "--save-interval": ("--aws-debugger", "--save-interval", "5"),
        "--profiler": ("--profiler",),
        "--reports": ("--reports", "here"),
        "--watch": None,
        "--stop": None,
    },
    "tune": {
        **TRAINING,
        "--name": ("--name", "dogs-1"),
        "--results": ("--results", "here"),
        "--objective": ("--objective", "validation:loss"),
        "--strategy": ("--strategy", "hyperband"),
        "--jobs": ("--jobs", "1"),
        "--parallel": ("--parallel", "4"),
        "--early-stopping": ("--early-stopping",),
        "--warm-start": ("--warm-start", "one", "two"),
        "--transfer": ("--warm-start", "one", "--transfer"),
        "--seed": ("--seed", "7"),
        "--target": ("--target", "0.9"),
        "--max-runtime": ("--max-runtime", "3600"),
        "--no-improvement": ("--no-improvement", "3"),
        "--watch": None,
        "--stop": None,
    },
    "deploy": {
        **COMMON,
        "--local": None,
        "--name": ("--name", "d" * 63),
        "--instance": ("--instance", "ml.g5.xlarge"),
        "--instances": ("--instances", "2"),
        "--take-over": ("--take-over",),
        "--bind": None,
        "--ami": ("--instance", "ml.g5.xlarge", "--ami", "al2-ami-sagemaker-inference-gpu-2-1"),
        "--capture": ("--capture", "s3://bucket/captured"),
        "--capture-percent": ("--capture", "s3://bucket/captured", "--capture-percent", "20"),
        "--serverless": ("--serverless",),
        "--asynchronous": ("--asynchronous", "s3://bucket/answers"),
        "--multi-model": ("--multi-model",),
        "--memory": ("--serverless", "--memory", "6144"),
        "--concurrency": ("--serverless", "--concurrency", "200"),
        "--provisioned": ("--serverless", "--provisioned", "5"),
        "--max-concurrent-invocations": ("--asynchronous", "s3://bucket/a", "--max-concurrent-invocations", "4"),
        "--sns": ("--asynchronous", "s3://bucket/a", "--sns", TOPIC),
        "--cooldown": ("--max-instances", "4", "--cooldown", "900"),
        "--max-instances": ("--max-instances", "4"),
        "--min-instances": ("--asynchronous", "s3://bucket/a", "--max-instances", "4", "--min-instances", "0"),
        "--requests-each": ("--max-instances", "4", "--requests-each", "2.5"),
        "--update": ("--instances", "4", "--update", "rolling", "--alarm", "errors"),
        "--update-percent": ("--instances", "4", "--update", "canary", "--update-percent", "50", "--alarm", "errors"),
        "--bake": ("--alarm", "errors", "--bake", "3600"),
        "--alarm": ("--alarm", "too many errors", "--alarm", "latency"),
    },
    "batch_transform": {
        **COMMON,
        "--local": None,
        "--output": ("--output", "s3://bucket/others/"),
        "--name": ("--name", "dogs-1"),
        "--accept": ("--accept", "text/csv"),
        "--instance": ("--instance", "ml.g5.xlarge"),
        "--instances": ("--instances", "3"),
        "--concurrent": ("--concurrent", "16"),
        "--max-payload": ("--max-payload", "25"),
        "--manifest": ("--manifest",),
        "--join-input": ("--join-input",),
        "--stop": None,
        "--watch": None,
    },
}
ARTIFACT = "s3://bucket/model.tar.gz"
DEFINITION = "CreateHyperParameterTuningJob.TrainingJobDefinition"
ASYNCHRONOUS = "CreateEndpointConfig.AsyncInferenceConfig"
TRACKING = "PutScalingPolicy.TargetTrackingScalingPolicyConfiguration"
PROJECT = {"Key": "project", "Value": "image-classifier"}
OWNER = ("identity: ", "; the tag owner is left out")
ARGUMENTS = {
    "train": ("--channel", "train=s3://bucket/dogs/", "--output", "s3://bucket/models", "epochs=3"),
    "tune": ("ranges.json", "--channel", "train=s3://bucket/dogs/", "--output", "s3://bucket/models", "epochs=3"),
    "deploy": (ARTIFACT,),
    "batch_transform": (ARTIFACT, "s3://bucket/photos/", "--output", "s3://bucket/answers"),
    "predict": ("dogs", "photo.png"),
}
SINGLE = {"train": "CreateTrainingJob", "tune": "CreateHyperParameterTuningJob"}


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with the files that the arguments name, and neither credentials nor a region."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SAGEMAKER_ROLE", ROLE)
    monkeypatch.setenv("IMAGE_URI", IMAGE)
    monkeypatch.chdir(tmp_path)
    entry = {"Name": "learning_rate", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Auto"}
    Path("ranges.json").write_text(json.dumps({"ContinuousParameterRanges": [entry]}), encoding="utf-8")
    Path("best.json").write_text('{"momentum": 0.8}', encoding="utf-8")
    Image.new("RGB", (8, 8)).save("photo.png")


def dry_run(command: str, *more: str) -> int:
    return load(command).main([*ARGUMENTS[command], *more, "--dry-run"])


def requests_in(command: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    printed = json.loads(text)
    if command == "predict":
        yield from (("InvokeEndpoint", request) for request in printed)
    else:
        for operation, given in {SINGLE[command]: printed}.items() if command in SINGLE else printed.items():
            yield from ((operation, request) for request in (given if isinstance(given, list) else [given]))


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_gives_requests_that_the_service_accepts(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clients that can't ask anything are shown below; each takes a quarter of a second to create.
    monkeypatch.setattr(PlatformOptions, "look_up", lambda _, __, assumed, ___: assumed)
    for option, given in OPTIONS[command].items():
        if given is None:
            continue
        assert dry_run(command, *given) == 0, (option, capsys.readouterr().err)
        for operation, request in requests_in(command, capsys.readouterr().out):
            assert [fault.for_user() for fault in faults(operation, request)] == [], option


@pytest.mark.parametrize(
    ("command", "given", "sent"),
    [
        ("train", ["--keep-alive", "1800"], {"CreateTrainingJob.ResourceConfig.KeepAlivePeriodInSeconds": 1800}),
        ("train", ["--retry", "3"], {"CreateTrainingJob.RetryStrategy": {"MaximumRetryAttempts": 3}}),
        ("tune", ["--retry", "3"], {f"{DEFINITION}.RetryStrategy": {"MaximumRetryAttempts": 3}}),
        ("train", ["--encrypt-between-hosts"], {"CreateTrainingJob.EnableInterContainerTrafficEncryption": True}),
        ("tune", ["--encrypt-between-hosts"], {f"{DEFINITION}.EnableInterContainerTrafficEncryption": True}),
        ("train", ["--remote-debug"], {"CreateTrainingJob.RemoteDebugConfig": {"EnableRemoteDebug": True}}),
        (
            "train",
            [],
            {
                "CreateTrainingJob.RemoteDebugConfig": None,
                "CreateTrainingJob.RetryStrategy": None,
                "CreateTrainingJob.EnableInterContainerTrafficEncryption": None,
                "CreateTrainingJob.ResourceConfig.KeepAlivePeriodInSeconds": None,
            },
        ),
        (
            "deploy",
            ["--asynchronous", "s3://b/a", "--max-concurrent-invocations", "4", "--sns", TOPIC],
            {
                f"{ASYNCHRONOUS}.ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
                f"{ASYNCHRONOUS}.OutputConfig.NotificationConfig": {"SuccessTopic": TOPIC, "ErrorTopic": TOPIC},
            },
        ),
        (
            "deploy",
            ["--asynchronous", "s3://b/a"],
            {f"{ASYNCHRONOUS}.ClientConfig": None, f"{ASYNCHRONOUS}.OutputConfig.NotificationConfig": None},
        ),
        (
            "deploy",
            ["--serverless", "--provisioned", "4"],
            {
                "CreateEndpointConfig.ProductionVariants.0.ServerlessConfig": {
                    "MemorySizeInMB": 4096,
                    "MaxConcurrency": 5,
                    "ProvisionedConcurrency": 4,
                }
            },
        ),
        (
            "deploy",
            ["--max-instances", "3", "--cooldown", "900"],
            {f"{TRACKING}.ScaleInCooldown": 900, f"{TRACKING}.ScaleOutCooldown": 60},
        ),
        ("deploy", ["--max-instances", "3"], {f"{TRACKING}.ScaleInCooldown": 300}),
        (
            "batch_transform",
            ["--manifest"],
            {
                "CreateTransformJob.TransformInput.DataSource.S3DataSource": {
                    "S3DataType": "ManifestFile",
                    "S3Uri": "s3://bucket/photos/",
                },
                "CreateTransformJob.DataProcessing": None,
            },
        ),
        (
            "batch_transform",
            ["--join-input"],
            {
                "CreateTransformJob.DataProcessing": {"JoinSource": "Input"},
                "CreateTransformJob.TransformInput.ContentType": "application/jsonlines",
                "CreateTransformJob.TransformInput.SplitType": "Line",
                "CreateTransformJob.TransformOutput.Accept": "application/jsonlines",
                "CreateTransformJob.TransformOutput.AssembleWith": "Line",
            },
        ),
        (
            "train",
            ["--tag", "owner=me", "--tag", "team=dogs"],
            {"CreateTrainingJob.Tags": [PROJECT, {"Key": "owner", "Value": "me"}, {"Key": "team", "Value": "dogs"}]},
        ),
    ],
)
def test_option_is_sent_as_it_is_given(
    command: str,
    given: list[str],
    sent: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PlatformOptions, "look_up", lambda _, __, assumed, ___: assumed)
    assert dry_run(command, *given) == 0, capsys.readouterr().err
    requests = dict(requests_in(command, capsys.readouterr().out))
    assert {path: _value_at(requests, path) for path in sent} == sent


def _value_at(document: Any, path: str) -> Any:
    """Return the value at a path of keys and indices, or None if there is none."""
    for key in path.split("."):
        document = document[int(key)] if isinstance(document, list) else document.get(key)
        if document is None:
            return None
    return document


@pytest.mark.parametrize(
    ("command", "given", "assumptions"),
    [
        (
            "train",
            ["--data", "s3://bucket/dogs", "--role", "Trainer"],
            [
                ("role Trainer: ", "; the account number below is made up"),
                ("s3://bucket/dogs: ", "; the channels train, validation, test are assumed"),
                OWNER,
            ],
        ),
        ("tune", ["--role", "Trainer"], [("role Trainer: ", "; the account number below is made up"), OWNER]),
        ("deploy", [], [(f"{ARTIFACT}: ", "; the names below differ from those of a real run"), OWNER]),
        ("batch_transform", [], [(f"{ARTIFACT}: ", "; the names below differ from those of a real run"), OWNER]),
        ("predict", [], [("endpoint dogs: ", "; a real-time endpoint is assumed")]),
    ],
)
def test_dry_run_needs_no_credentials_and_says_what_it_did_not_check(
    command: str, given: list[str], assumptions: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(command, *given, "--region", "us-east-1") == 0
    out, error = capsys.readouterr()
    lines = [line for line in error.splitlines() if line.startswith("not checked: ")]
    assert len(lines) == len(assumptions)
    for start, end in assumptions:
        (line,) = (line for line in lines if line.startswith(f"not checked: {start}no AWS credentials are set"))
        assert line.endswith(end)
    if command in ("train", "tune", "batch_transform"):
        assert "not checked in a dry run: whether there are objects to read and buckets: bucket\n" in error
    assert ("cost        " in error) is (command != "predict")
    for operation, request in requests_in(command, out):
        assert list(faults(operation, request)) == []


def test_dry_run_of_a_teardown_needs_no_credentials_either(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("teardown").main(["--name", "dogs", "--dry-run", "--region", "us-east-1"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("not checked: SageMaker: no AWS credentials are set")
    assert error.endswith("; what is left is not known\n")


@pytest.mark.parametrize("command", OPTIONS)
def test_no_option_is_left_out_above(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()

    def parse(self: Any, _: object) -> None:
        known.update(option for action in self._actions for option in action.option_strings if len(option) > 2)
        raise SystemExit

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(f"argparse.ArgumentParser.{name}", parse)
    with pytest.raises(SystemExit):
        load(command)._parse([])
    assert known - {"--help"} == OPTIONS[command].keys()


def test_request_of_a_prediction_is_accepted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlatformOptions, "look_up", lambda _, __, assumed, ___: assumed)
    assert dry_run("predict", "--target-model", "dogs.tar.gz") == 0
    for operation, request in requests_in("predict", capsys.readouterr().out):
        assert list(faults(operation, request)) == []


LETTERS = "only letters, digits and hyphens, with a letter or digit at both ends, at most 63 characters"
S3 = "has to be an address of the form s3://BUCKET/PREFIX"


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("train", ["--instance", "ml.banana"], "--instance ml.banana: not among the "),
        ("train", ["--instance", "ml.g5.huge"], ": ml.g5.xlarge, ml.g5.2xlarge, "),
        ("train", ["--instance", "ml.g5.xlagre"], " (did you mean 'ml.g5.xlarge'?)"),
        ("train", ["--name", "bad_name"], f"--name bad_name: {LETTERS}\n"),
        ("train", ["--name", "n" * 64], f"--name {'n' * 60}…: 64 characters, and from 1 to 63 are allowed\n"),
        ("train", ["--output", "my-bucket/x"], f"--output my-bucket/x: {S3}\n"),
        ("train", ["--instances", "0"], "--instances 0: at least 1 is allowed\n"),
        ("train", ["--volume", "0"], "--volume 0: at least 1 is allowed\n"),
        ("train", ["--save-interval", "0", "--aws-debugger"], "--save-interval 0: at least 1 step\n"),
        ("train", ["--env", "9A=secret"], "--env 9A: only letters, digits and underscores, with no digit first\n"),
        ("train", ["--env", f"A={'secret' * 100}"], "--env A: 600 characters, and from 0 to 512 are allowed\n"),
        ("train", ["--tag", "a=b?"], "--tag b?: only letters, digits, spaces and the characters _ . : / = + - @\n"),
        ("train", ["--kms-key", "a key"], "--kms-key a key: only letters, digits and the characters : / _ -\n"),
        ("train", ["--role", "arn:aws:iam::1:role/x"], "--role arn:aws:iam::1:role/x: has to be a name, or arn:aws"),
        ("train", ["--channel", "a b=s3://bucket/x/"], "--channel a b: only letters, digits and the characters . - _"),
        ("tune", ["--jobs", "2", "--parallel", "3"], "--parallel 3: at most as many as there are --jobs, 2\n"),
        ("tune", ["--output", "models"], f"--output models: {S3}\n"),
        ("tune", ["--instance", "ml.c7g.large"], "--instance ml.c7g.large: not among the "),
        ("tune", ["--warm-start", "a_b"], "--warm-start a_b: only letters"),
        ("deploy", ["--name", "bad_name"], f"--name bad_name: {LETTERS}\n"),
        (
            "deploy",
            ["--instance", "ml.c7g.large"],
            "--instance ml.c7g.large: an ARM instance, and the image is for ",
        ),
        ("deploy", ["--instances", "0"], "--instances 0: at least 1 is allowed\n"),
        ("deploy", ["--capture", "bucket/x"], f"--capture bucket/x: {S3}\n"),
        ("deploy", ["--asynchronous", "bucket/x"], f"--asynchronous bucket/x: {S3}\n"),
        ("deploy", ["--serverless", "--memory", "1500"], "--memory 1500: 1024, 2048, 3072, 4096, 5120 or 6144 MB\n"),
        ("deploy", ["--serverless", "--memory", "8192"], "--memory 8192: from 1,024 to 6,144 is allowed\n"),
        ("deploy", ["--serverless", "--concurrency", "0"], "--concurrency 0: from 1 to 200 is allowed\n"),
        ("deploy", ["--alarm", "a", "--bake", "4000"], "--bake 4000: from 0 to 3,600 is allowed\n"),
        ("batch_transform", ["--name", "bad_name"], f"--name bad_name: {LETTERS}\n"),
        ("batch_transform", ["--output", "my-bucket/x"], f"--output my-bucket/x: {S3}\n"),
        ("batch_transform", ["--concurrent", "-1"], "--concurrent -1: at least 0 is allowed\n"),
        (
            "batch_transform",
            ["--concurrent", "20"],
            "--concurrent 20: times --max-payload 6 is 120 MB in flight, and 100 MB are allowed: lower one of them\n",
        ),
        ("train", ["--keep-alive", "99999"], "--keep-alive 99999: from 0 to 21,600 is allowed\n"),
        (
            "train",
            ["--keep-alive", "60", "--spot"],
            "--keep-alive 60: there are no warm pools of --spot capacity: leave one out\n",
        ),
        ("train", ["--retry", "0"], "--retry 0: from 1 to 30 is allowed\n"),
        ("tune", ["--retry", "31"], "--retry 31: from 1 to 30 is allowed\n"),
        (
            "deploy",
            ["--asynchronous", "s3://bucket/a", "--sns", "answers"],
            "--sns answers: has to be arn:aws:sns:REGION:ACCOUNT:TOPIC\n",
        ),
        (
            "deploy",
            ["--asynchronous", "s3://bucket/a", "--max-concurrent-invocations", "0"],
            "--max-concurrent-invocations 0: from 1 to 1,000 is allowed\n",
        ),
        ("deploy", ["--serverless", "--provisioned", "6"], "--provisioned 6: at most the --concurrency, 5\n"),
        ("deploy", ["--max-instances", "2", "--cooldown", "-1"], "--cooldown -1: at least 0 seconds\n"),
        ("deploy", ["--cooldown", "60"], "--cooldown needs --max-instances: give both, or neither\n"),
        ("deploy", ["--provisioned", "1"], "--provisioned needs --serverless: give both, or neither\n"),
        ("deploy", ["--sns", TOPIC], "--sns needs --asynchronous: give both, or neither\n"),
        (
            "deploy",
            ["--max-concurrent-invocations", "2"],
            "--max-concurrent-invocations needs --asynchronous: give both, or neither\n",
        ),
        (
            "batch_transform",
            ["--join-input", "--accept", "text/csv"],
            "--accept text/csv can't be joined with JSON Lines: leave --accept or --join-input out\n",
        ),
        # Options that nothing would come of.
        (
            "deploy",
            ["--instance", "ml.g5.xlarge", "--ami", "al1"],
            "--ami al1: not among al2-ami-sagemaker-inference-gpu",
        ),
        (
            "deploy",
            ["--ami", "al2-ami-sagemaker-inference-gpu-2"],
            "has a GPU's driver: choose an --instance with a GPU",
        ),
        ("deploy", ["--memory", "4096"], "--memory needs --serverless: give both, or neither\n"),
        ("deploy", ["--concurrency", "5"], "--concurrency needs --serverless: give both, or neither\n"),
        ("deploy", ["--capture-percent", "0"], "--capture-percent needs --capture: give both, or neither\n"),
        ("deploy", ["--requests-each", "4"], "--requests-each needs --max-instances: give both, or neither\n"),
        ("deploy", ["--serverless", "--instances", "2"], "--instances can't be combined with --serverless"),
        ("train", ["--save-interval", "5"], "--save-interval needs --aws-debugger: give both, or neither\n"),
        ("tune", ["--transfer"], "--transfer needs --warm-start: give both, or neither\n"),
        (
            "predict",
            ["--target-model", " x"],
            "--target-model  x: only printable ASCII characters, with no",
        ),
    ],
)
def test_value_that_the_service_refuses_is_named_with_its_option(
    command: str, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(command, *given) == 1
    out, error = capsys.readouterr()
    assert message in error
    assert (out, error.count("\n"), error.startswith(f"{command}: ")) == ("", 1, True)
    assert "secret" not in error


def test_local_client_refuses_what_aws_refuses_and_takes_folders(tmp_path: Path) -> None:
    request = {"EndpointName": "dogs", "EndpointConfigName": "dogs-1"}
    check({"CreateEndpoint": request}, local=True)
    output = {"S3OutputPath": tmp_path.as_uri(), "S3FailurePath": tmp_path.as_uri()}
    variant = {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    config = {
        "EndpointConfigName": "dogs",
        "ProductionVariants": [variant],
        "AsyncInferenceConfig": {"OutputConfig": output},
    }
    check({"CreateEndpointConfig": config}, local=True)
    with pytest.raises(RequestError, match=r"^--asynchronous file:///\S+: has to be an address of the form s3://"):
        check({"CreateEndpointConfig": config})


def test_unknown_and_missing_fields_are_refused() -> None:
    assert [fault.for_caller() for fault in faults("CreateEndpoint", {"EndpointName": "a", "Typo": 1})] == [
        'CreateEndpoint: Missing required parameter in input: "EndpointConfigName"; '
        'Unknown parameter in input: "Typo", must be one of: EndpointName, EndpointConfigName, DeploymentConfig, Tags'
    ]


def test_patterns_mean_in_python_what_they_mean_in_java() -> None:
    tag = _compile(r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")
    assert tag is not None
    assert [bool(tag.fullmatch(text)) for text in ("Größe 3", "a\tb", "a?")] == [True, False, False]
    printable = _compile(r"\p{Print}+")
    assert printable is not None
    assert [bool(printable.fullmatch(text)) for text in ("a b", "a\nb", "")] == [True, False, False]
    # What Python has no counterpart for is left to the service.
    assert _compile(r"\p{IsGreek}+") is None


@pytest.mark.parametrize(
    "operation",
    [
        *("CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateModel", "CreateEndpointConfig"),
        *("CreateEndpoint", "UpdateEndpoint", "CreateTransformJob", "RegisterScalableTarget", "PutScalingPolicy"),
        *("InvokeEndpoint", "InvokeEndpointAsync", "PutMetricAlarm", "CreateRepository"),
    ],
)
def test_all_patterns_of_the_requests_are_checked(operation: str) -> None:
    patterns: dict[str, str] = {}

    def collect(shape: Any) -> None:
        if shape.name not in patterns:
            patterns[shape.name] = shape.metadata.get("pattern", "")
            members = shape.members.values() if shape.type_name == "structure" else []
            for child in (*members, *(getattr(shape, name, None) for name in ("member", "key", "value"))):
                if child is not None:
                    collect(child)

    collect(input_shape(operation))
    assert [name for name, pattern in patterns.items() if pattern and _compile(pattern) is None] == []

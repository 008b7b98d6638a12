"""Every request that the commands send is one that botocore would send: its own validator, its own service model."""

from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from classifier.contract import driver
from classifier.contract.metrics import METRICS
from launch.endpoint.request import (
    Capture,
    EndpointSpec,
    ScalingSpec,
    Serverless,
    Update,
    config_request,
    create_request,
    policy_request,
    target_request,
    update_request,
)
from launch.platform.ecr import repository_request
from launch.platform.resources import INFERENCE_AMI, TRANSFORM_AMI, has_gpu
from launch.training.request import Network, TrainingSpec, training_definition, training_request
from launch.transform.request import TransformSpec, transform_request

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
NETWORK = Network(subnets=("subnet-1",), security_groups=("sg-1",))
TAGS = {"team": "dogs"}
_MODELS: dict[str, ServiceModel] = {}


def errors_in(service: str, operation: str, request: dict[str, Any]) -> str:
    """What botocore's validator has against a request, unknown values of enumerations included."""
    if service not in _MODELS:
        _MODELS[service] = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    shape = _MODELS[service].operation_model(operation).input_shape
    assert shape is not None
    return ParamValidator().validate(request, shape).generate_report() + "".join(_unknown_values(shape, request))


def _unknown_values(shape: Any, value: Any) -> list[str]:
    """botocore leaves enumerations unchecked; the service does not."""
    if shape.type_name == "structure":
        return [line for key, one in value.items() for line in _unknown_values(shape.members[key], one)]
    if shape.type_name == "list":
        return [line for one in value for line in _unknown_values(shape.member, one)]
    allowed = getattr(shape, "enum", [])
    return [f"{value!r} is none of {shape.name}\n"] if allowed and value not in allowed else []


def training_spec(**changes: Any) -> TrainingSpec:
    values = {
        "job_name": "job",
        "image": IMAGE,
        "role": ROLE,
        "channels": {"train": "s3://bucket/train/", "pretrained": "s3://bucket/weights/"},
        "output": "s3://bucket/models",
        "hyperparameters": {"epochs": "3"},
    }
    return TrainingSpec(**{**values, **changes})


TRAININGS = [
    {},
    {"spot": True, "checkpoints": "s3://bucket/checkpoints", "max_wait_s": 90000},
    {"num_instances": 4, "instance_type": "ml.p4d.24xlarge", "input_mode": "FastFile", "volume_gb": 200},
    {"debugger": True, "save_interval": 10, "profiler": True},
    {"network_isolation": True, "network": NETWORK, "kms_key": "key", "environment": {"A": "b"}, "tags": TAGS},
]


@pytest.mark.parametrize("changes", TRAININGS)
def test_a_training_is_one_that_botocore_sends(changes: dict[str, Any]) -> None:
    assert errors_in("sagemaker", "CreateTrainingJob", training_request(training_spec(**changes))) == ""


@pytest.mark.parametrize("changes", TRAININGS)
def test_a_tunings_definition_is_one_that_botocore_sends(changes: dict[str, Any]) -> None:
    request = {
        "HyperParameterTuningJobName": "tuning",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
        },
        "TrainingJobDefinition": training_definition(training_spec(**changes)),
    }
    assert errors_in("sagemaker", "CreateHyperParameterTuningJob", request) == ""


def test_the_metric_definitions_are_the_one_table() -> None:
    definitions = training_request(training_spec())["AlgorithmSpecification"]["MetricDefinitions"]
    assert [one["Name"] for one in definitions] == list(METRICS)
    assert len(definitions) <= 40


def test_spot_waits_longer_than_it_runs() -> None:
    stopping = training_request(training_spec(spot=True, max_run_s=100))["StoppingCondition"]
    assert stopping["MaxWaitTimeInSeconds"] > stopping["MaxRuntimeInSeconds"] == 100


def test_what_is_not_asked_for_is_not_sent() -> None:
    names = training_request(training_spec()).keys()
    assert not names & {"CheckpointConfig", "DebugHookConfig", "ProfilerConfig", "VpcConfig", "Environment"}


@pytest.mark.parametrize("multi_model", [False, True])
def test_a_model_is_one_that_botocore_sends(multi_model: bool) -> None:
    spec = ModelSpec(
        name="model",
        image=IMAGE,
        role=ROLE,
        data="s3://bucket/model.tar.gz",
        multi_model=multi_model,
        network_isolation=True,
        network=NETWORK,
        environment={"A": "b"},
        tags=TAGS,
    )
    assert errors_in("sagemaker", "CreateModel", model_request(spec)) == ""


ENDPOINTS = [
    {},
    {"instance_type": "ml.g5.xlarge", "num_instances": 2, "kms_key": "key"},
    {"serverless": Serverless(memory_mb=6144, max_concurrency=20), "kms_key": "key"},
    {"asynchronous": "s3://bucket/answers/"},
    {"capture": Capture(place="s3://bucket/captured", percent=20), "tags": TAGS},
]


@pytest.mark.parametrize("changes", ENDPOINTS)
def test_an_endpoint_config_is_one_that_botocore_sends(changes: dict[str, Any]) -> None:
    request = config_request(EndpointSpec(config_name="config", model_name="model", **changes))
    assert errors_in("sagemaker", "CreateEndpointConfig", request) == ""


def test_a_gpu_gets_a_host_whose_driver_fits_the_image() -> None:
    def variant(instance: str) -> dict[str, Any]:
        spec = EndpointSpec(config_name="config", model_name="model", instance_type=instance)
        return config_request(spec)["ProductionVariants"][0]

    assert variant("ml.g5.xlarge")["InferenceAmiVersion"] == INFERENCE_AMI == driver.INFERENCE_AMI
    assert TRANSFORM_AMI == driver.TRANSFORM_AMI
    assert "InferenceAmiVersion" not in variant("ml.m5.large")
    assert variant("ml.m5.large")["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}


@pytest.mark.parametrize(
    ("instance", "answer"),
    [("ml.g4dn.xlarge", True), ("ml.p4d.24xlarge", True), ("ml.m5.large", False), ("ml.inf2.xlarge", False)],
)
def test_the_name_of_an_instance_tells_whether_it_has_a_gpu(instance: str, answer: bool) -> None:
    assert has_gpu(instance) is answer


def test_creating_an_endpoint_is_what_botocore_sends() -> None:
    assert errors_in("sagemaker", "CreateEndpoint", create_request("endpoint", "config", TAGS)) == ""


@pytest.mark.parametrize(
    "update",
    [
        Update(),
        Update(alarms=("a",)),
        Update(manner="canary", percent=20, bake_s=60, alarms=("a", "b")),
        Update(manner="rolling", percent=50, alarms=("a",)),
    ],
)
def test_an_update_is_one_that_botocore_sends_and_keeps_the_scale(update: Update) -> None:
    request = update_request("endpoint", "config", update)
    assert errors_in("sagemaker", "UpdateEndpoint", request) == ""
    assert request["RetainAllVariantProperties"] is True


@pytest.mark.parametrize("asynchronous", [False, True])
def test_scaling_is_what_botocore_sends(asynchronous: bool) -> None:
    spec = ScalingSpec(endpoint="endpoint", min_instances=1, max_instances=4, asynchronous=asynchronous)
    service = "application-autoscaling"
    assert errors_in(service, "RegisterScalableTarget", target_request(spec)) == ""
    assert errors_in(service, "PutScalingPolicy", policy_request(spec)) == ""
    assert errors_in(service, "DeregisterScalableTarget", deregister_request("endpoint")) == ""


@pytest.mark.parametrize("instance", ["ml.m5.xlarge", "ml.g4dn.xlarge"])
def test_a_transform_is_one_that_botocore_sends(instance: str) -> None:
    spec = TransformSpec(
        job_name="job",
        model_name="model",
        photos="s3://bucket/photos/",
        output="s3://bucket/answers",
        instance_type=instance,
        kms_key="key",
        tags=TAGS,
    )
    assert errors_in("sagemaker", "CreateTransformJob", transform_request(spec)) == ""


def test_a_repository_is_one_that_botocore_sends() -> None:
    request = repository_request("image-classifier")
    assert errors_in("ecr", "CreateRepository", request) == ""
    assert (request["imageTagMutability"], request["imageScanningConfiguration"]) == ("IMMUTABLE", {"scanOnPush": True})

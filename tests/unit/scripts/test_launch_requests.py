"""Requests to AWS: valid by botocore's service models, with the values of the specification."""

from dataclasses import replace
from typing import Any

import pytest

from aws.request_check import faults
from classifier.contract.driver import INFERENCE_AMI, TRANSFORM_AMI
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
    wake_alarm_request,
    wake_policy_request,
)
from launch.platform.ecr import repository_request
from launch.platform.models import ModelSpec, content_name, model_request
from launch.platform.resources import Security, has_gpu, scalable_target
from launch.training.request import Monitoring, Resources, TrainingSpec, training_definition, training_request
from launch.transform import TransformSpec, transform_request

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
SECURITY = Security(kms_key="key", subnets=("subnet-1", "subnet-2"), security_groups=("sg-1",), network_isolation=True)
VPC = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
TAGS = {"team": "dogs"}
TAG_LIST = [{"Key": "project", "Value": "image-classifier"}, {"Key": "team", "Value": "dogs"}]


def errors_in(operation: str, request: dict[str, Any]) -> str:
    return "; ".join(fault.for_caller() for fault in faults(operation, request))


SPEC = TrainingSpec(
    job_name="job",
    image=IMAGE,
    role=ROLE,
    channels={"train": "s3://bucket/train/", "pretrained": "s3://bucket/weights/", "model": "s3://bucket/model/"},
    output="s3://bucket/models",
    hyperparameters={"epochs": "3"},
)
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "spot": {"resources": Resources(spot=True, max_wait_s=90000), "checkpoints": "s3://bucket/checkpoints"},
    "large": {
        "resources": Resources(num_instances=4, instance_type="ml.p4d.24xlarge", volume_gb=200, max_run_s=7200),
        "input_mode": "FastFile",
    },
    "monitored": {"monitoring": Monitoring(aws_debugger=True, save_interval=10, profiler=True)},
    "secured": {"security": SECURITY, "environment": {"A": "b"}, "tags": TAGS},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_request_is_valid(name: str) -> None:
    assert errors_in("CreateTrainingJob", training_request(replace(SPEC, **TRAININGS[name]))) == ""


@pytest.mark.parametrize("name", TRAININGS)
def test_training_definition_of_a_tuning_job_is_valid(name: str) -> None:
    request = {
        "HyperParameterTuningJobName": "tuning",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
        },
        "TrainingJobDefinition": training_definition(replace(SPEC, **TRAININGS[name])),
    }
    assert errors_in("CreateHyperParameterTuningJob", request) == ""


def channel(name: str, uri: str, content_type: str = "application/x-image") -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "ContentType": content_type}


def test_training_request_has_exactly_the_values_of_the_spec() -> None:
    request = training_request(replace(SPEC, **TRAININGS["large"]))
    assert request.pop("AlgorithmSpecification") == {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "FastFile",
        "MetricDefinitions": [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS.values()],
    }
    assert request == {
        "TrainingJobName": "job",
        "HyperParameters": {"epochs": "3"},
        "RoleArn": ROLE,
        # Every host reads all photos and picks its share, which is reshuffled every epoch.
        "InputDataConfig": [
            channel("train", "s3://bucket/train/"),
            channel("pretrained", "s3://bucket/weights/"),
            channel("model", "s3://bucket/model/", "application/x-sagemaker-model"),
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
        "ResourceConfig": {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 4, "VolumeSizeInGB": 200},
        "StoppingCondition": {"MaxRuntimeInSeconds": 7200},
        "EnableNetworkIsolation": False,
        "EnableManagedSpotTraining": False,
        "Tags": TAG_LIST[:1],
    }


def test_key_network_environment_and_tags_are_sent() -> None:
    request = training_request(replace(SPEC, **TRAININGS["secured"]))
    assert request["OutputDataConfig"]["KmsKeyId"] == "key"
    assert request["ResourceConfig"]["VolumeKmsKeyId"] == "key"
    assert request["VpcConfig"] == VPC
    assert request["EnableNetworkIsolation"] is True
    assert request["Environment"] == {"A": "b"}
    assert request["Tags"] == TAG_LIST


def test_debugger_and_profiler_are_sent_with_their_settings() -> None:
    request = training_request(replace(SPEC, **TRAININGS["monitored"]))
    assert request["DebugHookConfig"] == {
        "LocalPath": "/opt/ml/output/tensors",
        "S3OutputPath": "s3://bucket/models",
        "HookParameters": {"save_interval": "10"},
    }
    assert request["ProfilerConfig"] == {"S3OutputPath": "s3://bucket/models", "ProfilingIntervalInMilliseconds": 500}
    request = training_request(replace(SPEC, monitoring=Monitoring(aws_debugger=True)))
    assert "HookParameters" not in request["DebugHookConfig"]


def test_metric_definitions_fit_the_limit_of_the_api() -> None:
    assert len(training_request(SPEC)["AlgorithmSpecification"]["MetricDefinitions"]) <= 40


@pytest.mark.parametrize(("max_wait_s", "sent"), [(None, 100 + 3600), (200, 200)])
def test_spot_training_waits_for_capacity_on_top_of_its_run_time(max_wait_s: int | None, sent: int) -> None:
    resources = Resources(spot=True, max_run_s=100, max_wait_s=max_wait_s)
    request = training_request(replace(SPEC, resources=resources, checkpoints="s3://bucket/checkpoints"))
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": sent}
    assert request["EnableManagedSpotTraining"] is True
    assert request["CheckpointConfig"] == {"S3Uri": "s3://bucket/checkpoints", "LocalPath": "/opt/ml/checkpoints"}


def test_optional_fields_are_absent_by_default() -> None:
    names = training_request(SPEC).keys()
    assert not names & {"CheckpointConfig", "DebugHookConfig", "ProfilerConfig", "VpcConfig", "Environment"}


@pytest.mark.parametrize(("multi_model", "mode"), [(False, "SingleModel"), (True, "MultiModel")])
def test_model_request_is_valid_and_has_the_values_of_the_spec(multi_model: bool, mode: str) -> None:
    data = "s3://bucket/model.tar.gz"
    spec = ModelSpec(
        name="model",
        image=IMAGE,
        role=ROLE,
        data=data,
        multi_model=multi_model,
        security=SECURITY,
        environment={"A": "b"},
        tags=TAGS,
    )
    request = model_request(spec)
    assert errors_in("CreateModel", request) == ""
    assert request == {
        "ModelName": "model",
        "PrimaryContainer": {"Image": IMAGE, "Mode": mode, "ModelDataUrl": data, "Environment": {"A": "b"}},
        "ExecutionRoleArn": ROLE,
        "EnableNetworkIsolation": True,
        "VpcConfig": VPC,
        "Tags": TAG_LIST,
    }


def test_names_depend_on_contents_and_fit_the_limit_of_the_api() -> None:
    name = content_name("x" * 100, {"a": 1, "b": 2}, "version")
    assert name == content_name("x" * 100, {"b": 2, "a": 1}, "version")
    assert name != content_name("x" * 100, {"b": 2, "a": 1}, "later version")
    assert len(name) <= 63


ENDPOINTS: list[dict[str, Any]] = [
    {},
    {"instance_type": "ml.g5.xlarge", "num_instances": 2, "kms_key": "key"},
    {"serverless": Serverless(memory_mb=6144, max_concurrency=20), "kms_key": "key"},
    {"asynchronous": "s3://bucket/answers/"},
    {"capture": Capture(place="s3://bucket/captured", percent=20), "tags": TAGS},
]


@pytest.mark.parametrize("changes", ENDPOINTS)
def test_endpoint_config_request_is_valid(changes: dict[str, Any]) -> None:
    assert errors_in("CreateEndpointConfig", config(**changes)) == ""


def config(**changes: Any) -> dict[str, Any]:
    return config_request(EndpointSpec(config_name="config", model_name="model", **changes))


def variant(**changes: Any) -> dict[str, Any]:
    return config(**changes)["ProductionVariants"][0]


def test_endpoint_config_has_exactly_the_values_of_the_spec() -> None:
    assert config(instance_type="ml.g5.xlarge", num_instances=2, kms_key="key", tags=TAGS) == {
        "EndpointConfigName": "config",
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "ModelName": "model",
                "InitialVariantWeight": 1.0,
                "InstanceType": "ml.g5.xlarge",
                "InitialInstanceCount": 2,
                "ContainerStartupHealthCheckTimeoutInSeconds": 480,
                "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                "InferenceAmiVersion": INFERENCE_AMI,
            }
        ],
        "KmsKeyId": "key",
        "Tags": TAG_LIST,
    }


def test_serverless_asynchronous_and_capture_settings_are_sent() -> None:
    serverless = config(serverless=Serverless(memory_mb=6144, max_concurrency=20), kms_key="key")
    # Serverless endpoints have no volume that the key could encrypt.
    assert "KmsKeyId" not in serverless
    assert serverless["ProductionVariants"][0]["ServerlessConfig"] == {"MemorySizeInMB": 6144, "MaxConcurrency": 20}
    output = {"S3OutputPath": "s3://bucket/answers/", "S3FailurePath": "s3://bucket/answers/failed"}
    assert config(asynchronous="s3://bucket/answers/")["AsyncInferenceConfig"] == {"OutputConfig": output}
    assert "RoutingConfig" not in variant(asynchronous="s3://bucket/answers/")
    capture = config(capture=Capture(place="s3://bucket/captured", percent=20))["DataCaptureConfig"]
    assert (capture["EnableCapture"], capture["InitialSamplingPercentage"]) == (True, 20)
    assert capture["DestinationS3Uri"] == "s3://bucket/captured"
    assert capture["CaptureOptions"] == [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}]


def test_gpu_instances_get_a_host_image_with_a_recent_driver() -> None:
    assert variant(instance_type="ml.g5.xlarge")["InferenceAmiVersion"] == INFERENCE_AMI
    assert TRANSFORM_AMI.endswith("535")
    assert "InferenceAmiVersion" not in variant(instance_type="ml.m5.large")
    assert variant(instance_type="ml.g5.xlarge", ami="other")["InferenceAmiVersion"] == "other"


@pytest.mark.parametrize("instance", ["ml.g7.2xlarge", "ml.g7e.48xlarge", "ml.p6-b200.48xlarge", "ml.p6-b300.48xlarge"])
def test_blackwell_gets_the_ami_whose_driver_knows_it(instance: str) -> None:
    assert variant(instance_type=instance)["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"


@pytest.mark.parametrize(
    ("instance", "answer"),
    [("ml.g4dn.xlarge", True), ("ml.p4d.24xlarge", True), ("ml.m5.large", False), ("ml.inf2.xlarge", False)],
)
def test_instance_type_shows_whether_there_is_a_gpu(instance: str, answer: bool) -> None:
    assert has_gpu(instance) is answer


def test_endpoint_request_is_valid() -> None:
    request = create_request("endpoint", "config", TAGS)
    assert errors_in("CreateEndpoint", request) == ""
    assert request == {"EndpointName": "endpoint", "EndpointConfigName": "config", "Tags": TAG_LIST}


ALARMS = {"Alarms": [{"AlarmName": "a"}]}


def blue_green(kind: str, wait_s: int, **more: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": wait_s, **more}
    return {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 60}


def capacity(percent: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


@pytest.mark.parametrize(
    ("update", "deployment"),
    [
        (Update(), None),
        (
            Update(alarms=("a",)),
            {"BlueGreenUpdatePolicy": blue_green("ALL_AT_ONCE", 300), "AutoRollbackConfiguration": ALARMS},
        ),
        (
            Update(strategy="canary", percent=20, bake_s=60, alarms=("a",)),
            {
                "BlueGreenUpdatePolicy": blue_green("CANARY", 60, CanarySize=capacity(20)),
                "AutoRollbackConfiguration": ALARMS,
            },
        ),
        (
            Update(strategy="rolling", percent=50, alarms=("a",)),
            {
                "RollingUpdatePolicy": {"MaximumBatchSize": capacity(50), "WaitIntervalInSeconds": 300},
                "AutoRollbackConfiguration": ALARMS,
            },
        ),
    ],
)
def test_update_request_is_valid_and_keeps_the_number_of_instances(
    update: Update, deployment: dict[str, Any] | None
) -> None:
    request = update_request("endpoint", "config", update)
    assert errors_in("UpdateEndpoint", request) == ""
    assert request["RetainAllVariantProperties"] is True
    assert request["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DataCaptureConfig"}]
    assert request.get("DeploymentConfig") == deployment


def test_update_request_can_replace_the_number_of_instances() -> None:
    request = update_request("endpoint", "config", Update(), retain_count=False)
    assert errors_in("UpdateEndpoint", request) == ""
    replaced = [{"VariantPropertyType": "DesiredInstanceCount"}, {"VariantPropertyType": "DataCaptureConfig"}]
    assert request["ExcludeRetainedVariantProperties"] == replaced


@pytest.mark.parametrize("asynchronous", [False, True])
def test_scaling_requests_are_valid_and_have_the_values_of_the_spec(asynchronous: bool) -> None:
    spec = ScalingSpec(endpoint="dogs", min_instances=2, max_instances=4, target=7.0, asynchronous=asynchronous)
    target, policy = target_request(spec), policy_request(spec)
    assert errors_in("RegisterScalableTarget", target) == ""
    assert errors_in("PutScalingPolicy", policy) == ""
    assert errors_in("DeregisterScalableTarget", scalable_target("dogs")) == ""
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == (
        "endpoint/dogs/variant/AllTraffic",
        2,
        4,
    )
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"], tracking["ScaleOutCooldown"]) == (7.0, 300, 60)
    if asynchronous:
        metric = tracking["CustomizedMetricSpecification"]
        assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
        assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "dogs"}]
    else:
        assert tracking["PredefinedMetricSpecification"] == {
            "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        }


def test_requests_that_wake_an_endpoint_are_valid_and_those_of_the_documentation() -> None:
    spec = ScalingSpec(endpoint="dogs", min_instances=0, max_instances=4, asynchronous=True)
    policy, alarm = wake_policy_request(spec), wake_alarm_request(spec)
    assert errors_in("PutScalingPolicy", policy) == ""
    assert errors_in("PutMetricAlarm", alarm) == ""
    # One more instance, from the threshold on.
    steps = policy["StepScalingPolicyConfiguration"]["StepAdjustments"]
    assert (policy["PolicyType"], steps) == ("StepScaling", [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}])
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SageMaker", "HasBacklogWithoutCapacity")
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": "dogs"}]
    # The metric is 1 while requests wait and there is no instance.
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanOrEqualToThreshold", 1)
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (60, 2, 2)


@pytest.mark.parametrize(("instance", "ami"), [("ml.m5.xlarge", {}), ("ml.g4dn.xlarge", {"ami": TRANSFORM_AMI})])
def test_transform_request_is_valid_and_has_exactly_the_values_of_the_spec(instance: str, ami: dict[str, str]) -> None:
    spec = TransformSpec(
        job_name="job",
        model_name="model",
        photos="s3://bucket/photos/",
        output="s3://bucket/answers",
        accept="text/csv",
        instance_type=instance,
        num_instances=3,
        max_concurrent=7,
        max_payload_mb=9,
        kms_key="key",
        tags=TAGS,
    )
    request = transform_request(spec)
    assert errors_in("CreateTransformJob", request) == ""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/photos/"}}
    assert request == {
        "TransformJobName": "job",
        "ModelName": "model",
        "MaxConcurrentTransforms": 7,
        "MaxPayloadInMB": 9,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {"DataSource": source, "ContentType": "application/x-image", "SplitType": "None"},
        "TransformOutput": {
            "S3OutputPath": "s3://bucket/answers",
            "Accept": "text/csv",
            "AssembleWith": "None",
            "KmsKeyId": "key",
        },
        "TransformResources": {
            "InstanceType": instance,
            "InstanceCount": 3,
            "VolumeKmsKeyId": "key",
            **({"TransformAmiVersion": ami["ami"]} if ami else {}),
        },
        "Tags": TAG_LIST,
    }


def test_repository_request_is_valid_and_makes_tags_immutable() -> None:
    request = repository_request("image-classifier")
    assert errors_in("CreateRepository", request) == ""
    assert (request["imageTagMutability"], request["imageScanningConfiguration"]) == ("IMMUTABLE", {"scanOnPush": True})

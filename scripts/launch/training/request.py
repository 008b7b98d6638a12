"""What a training needs → a CreateTrainingJob request, and the definition of a tuning's trainings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from classifier.contract.metrics import METRICS
from launch.local.opt_ml import CHECKPOINTS, TENSORS
from launch.platform.resources import tag_list

DEFAULT_INSTANCE = "ml.g5.xlarge"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A VPC's subnets and security groups; none, and the platform's own network is used."""

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        if not self.subnets:
            return {}
        return {"VpcConfig": {"SecurityGroupIds": list(self.security_groups), "Subnets": list(self.subnets)}}


NO_NETWORK = Network()


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A training, as a person thinks of it.

    ``channels`` maps names to ``s3://`` prefixes, or ``file://`` folders for the local client; ``output`` is where the
    artifacts go. Sizes are in GB, times in seconds. ``debugger`` and ``profiler`` save what the platform's hook and
    profiler would, under ``output``.
    """

    job_name: str
    image: str
    role: str
    channels: Mapping[str, str]
    output: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    instance_type: str = DEFAULT_INSTANCE
    num_instances: int = 1
    volume_gb: int = 50
    max_run_s: int = 6 * 3600
    input_mode: str = "File"
    spot: bool = False
    max_wait_s: int | None = None
    checkpoints: str | None = None
    debugger: bool = False
    save_interval: int | None = None
    profiler: bool = False
    network_isolation: bool = False
    network: Network = NO_NETWORK
    kms_key: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def training_request(spec: TrainingSpec) -> dict[str, Any]:
    """The request that ``create_training_job`` takes."""
    return {
        "TrainingJobName": spec.job_name,
        "HyperParameters": dict(spec.hyperparameters),
        "AlgorithmSpecification": {
            "TrainingImage": spec.image,
            "TrainingInputMode": spec.input_mode,
            "MetricDefinitions": metric_definitions(),
        },
        **_where_and_how(spec),
        **_observers(spec),
        **({"Environment": dict(spec.environment)} if spec.environment else {}),
        "Tags": tag_list(spec.tags),
    }


def training_definition(spec: TrainingSpec) -> dict[str, Any]:
    """``TrainingJobDefinition`` of a tuning: what its trainings share. The job's name and tags are the tuning's own.

    The platform's debugger and profiler can't be asked for there.
    """
    return {
        "StaticHyperParameters": dict(spec.hyperparameters),
        "AlgorithmSpecification": {
            "TrainingImage": spec.image,
            "TrainingInputMode": spec.input_mode,
            "MetricDefinitions": metric_definitions(),
        },
        **_where_and_how(spec),
        **({"Environment": dict(spec.environment)} if spec.environment else {}),
    }


def metric_definitions() -> list[dict[str, str]]:
    """Every metric of the one table, as the platform reads it out of the log."""
    return [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS.values()]


def _where_and_how(spec: TrainingSpec) -> dict[str, Any]:
    """What a training job and a tuning's definition have in common."""
    checkpoints = {"S3Uri": spec.checkpoints, "LocalPath": CHECKPOINTS} if spec.checkpoints else None
    return {
        "RoleArn": spec.role,
        "InputDataConfig": [_channel(name, uri) for name, uri in spec.channels.items()],
        "OutputDataConfig": {"S3OutputPath": spec.output, **_key("KmsKeyId", spec.kms_key)},
        "ResourceConfig": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.num_instances,
            "VolumeSizeInGB": spec.volume_gb,
            **_key("VolumeKmsKeyId", spec.kms_key),
        },
        "StoppingCondition": _stopping(spec),
        "EnableNetworkIsolation": spec.network_isolation,
        "EnableManagedSpotTraining": spec.spot,
        **_key("CheckpointConfig", checkpoints),
        **spec.network.config(),
    }


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    content_type = "application/x-sagemaker-model" if name == "model" else "application/x-image"
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "ContentType": content_type}


def _stopping(spec: TrainingSpec) -> dict[str, int]:
    if not spec.spot:
        return {"MaxRuntimeInSeconds": spec.max_run_s}
    # The wait for a Spot instance comes on top of the training itself.
    return {
        "MaxRuntimeInSeconds": spec.max_run_s,
        "MaxWaitTimeInSeconds": spec.max_wait_s or spec.max_run_s + 3600,
    }


def _observers(spec: TrainingSpec) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if spec.debugger:
        interval = {"save_interval": str(spec.save_interval)} if spec.save_interval else {}
        config["DebugHookConfig"] = {
            "LocalPath": TENSORS,
            "S3OutputPath": spec.output,
            **({"HookParameters": interval} if interval else {}),
        }
    if spec.profiler:
        config["ProfilerConfig"] = {"S3OutputPath": spec.output, "ProfilingIntervalInMilliseconds": 500}
    return config


def _key(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}

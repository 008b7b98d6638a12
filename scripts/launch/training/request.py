"""Training specifications, the CreateTrainingJob request, and the training definition of a tuning job."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from classifier.contract.metrics import METRICS
from launch.local.opt_ml import CHECKPOINTS, TENSORS
from launch.platform.resources import NO_SECURITY, Security, tag_list

# Added to --max-run on spot capacity, where the time limit includes the wait for an instance.
_SPOT_WAIT_S = 3600
_PROFILER_INTERVAL_MS = 500


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Instances and time limits of a training job.

    Attributes:
        volume_gb: disk of each host, GB.
        max_run_s: time limit of the training, seconds.
        spot: use spot capacity.
        max_wait_s: with ``spot``, time limit that includes the wait for capacity; default: an hour over ``max_run_s``.
        keep_alive_s: how long the instances are kept for a next job, as a warm pool, seconds; None for no longer.
        retries: how often a job is started again after an internal error of the platform.
        encrypt_between_hosts: encrypt the traffic between the hosts of a job.
    """

    instance_type: str = "ml.g5.xlarge"
    num_instances: int = 1
    volume_gb: int = 50
    max_run_s: int = 6 * 3600
    spot: bool = False
    max_wait_s: int | None = None
    keep_alive_s: int | None = None
    retries: int | None = None
    encrypt_between_hosts: bool = False


DEFAULT_RESOURCES = Resources()


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """Measurements of a training.

    The container takes them and packs them into ``output.tar.gz``. With ``aws_debugger`` the platform is asked to
    upload them as they are written, below the output; not all accounts are allowed to.

    Attributes:
        debugger: save tensors and evaluate rules on them, as the hyperparameter ``debug`` does.
        profiler: save a profile, as the hyperparameter ``profile`` does.
        aws_debugger: send the platform's debugger configuration, and the profiler's with ``profiler``.
        save_interval: with ``aws_debugger``, steps between saves.
    """

    debugger: bool = False
    profiler: bool = False
    aws_debugger: bool = False
    save_interval: int | None = None


NO_MONITORING = Monitoring()


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A training job.

    Attributes:
        channels: maps channel names to ``s3://`` prefixes, or to ``file://`` folders for the local client.
        output: where the artifacts go, ``s3://`` or ``file://``.
        input_mode: ``File`` copies the channels first, ``FastFile`` streams them.
        checkpoints: where checkpoints are saved and resumed from, ``s3://`` or ``file://``.
        remote_debug: let Systems Manager open a shell in the running container.
    """

    job_name: str
    image: str
    role: str
    channels: Mapping[str, str]
    output: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    input_mode: str = "File"
    checkpoints: str | None = None
    remote_debug: bool = False
    resources: Resources = DEFAULT_RESOURCES
    monitoring: Monitoring = NO_MONITORING
    security: Security = NO_SECURITY
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def training_request(spec: TrainingSpec) -> dict[str, Any]:
    """Return the CreateTrainingJob request."""
    return {
        "TrainingJobName": spec.job_name,
        "HyperParameters": dict(spec.hyperparameters),
        **_common_fields(spec),
        **_monitoring_fields(spec),
        **({"RemoteDebugConfig": {"EnableRemoteDebug": True}} if spec.remote_debug else {}),
        "Tags": tag_list(spec.tags),
    }


def training_definition(spec: TrainingSpec) -> dict[str, Any]:
    """Return the ``TrainingJobDefinition`` of a tuning job: what its trainings have in common.

    It has no name and no tags, which are the tuning job's, and no debugger or profiler, which the API does not offer
    there.
    """
    return {"StaticHyperParameters": dict(spec.hyperparameters), **_common_fields(spec)}


def _common_fields(spec: TrainingSpec) -> dict[str, Any]:
    """Return the fields that a training job and a tuning job's definition share."""
    checkpoints = {"S3Uri": spec.checkpoints, "LocalPath": CHECKPOINTS} if spec.checkpoints else None
    resources = spec.resources
    return {
        "AlgorithmSpecification": {
            "TrainingImage": spec.image,
            "TrainingInputMode": spec.input_mode,
            "MetricDefinitions": [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS.values()],
        },
        "RoleArn": spec.role,
        "InputDataConfig": [_channel(name, uri) for name, uri in spec.channels.items()],
        "OutputDataConfig": {"S3OutputPath": spec.output, **_optional("KmsKeyId", spec.security.kms_key)},
        "ResourceConfig": {
            "InstanceType": resources.instance_type,
            "InstanceCount": resources.num_instances,
            "VolumeSizeInGB": resources.volume_gb,
            **_optional("VolumeKmsKeyId", spec.security.kms_key),
            **_given("KeepAlivePeriodInSeconds", resources.keep_alive_s),
        },
        "StoppingCondition": _stopping_condition(resources),
        "EnableNetworkIsolation": spec.security.network_isolation,
        "EnableManagedSpotTraining": resources.spot,
        **_optional("EnableInterContainerTrafficEncryption", resources.encrypt_between_hosts),
        **({} if resources.retries is None else {"RetryStrategy": {"MaximumRetryAttempts": resources.retries}}),
        **_optional("CheckpointConfig", checkpoints),
        **spec.security.vpc_config(),
        **_optional("Environment", dict(spec.environment)),
    }


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    content_type = "application/x-sagemaker-model" if name == "model" else "application/x-image"
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "ContentType": content_type}


def _stopping_condition(resources: Resources) -> dict[str, int]:
    limits = {"MaxRuntimeInSeconds": resources.max_run_s}
    if resources.spot:
        limits["MaxWaitTimeInSeconds"] = resources.max_wait_s or resources.max_run_s + _SPOT_WAIT_S
    return limits


def _monitoring_fields(spec: TrainingSpec) -> dict[str, Any]:
    monitoring, fields = spec.monitoring, {}
    if monitoring.aws_debugger:
        interval = {"save_interval": str(monitoring.save_interval)} if monitoring.save_interval else {}
        fields["DebugHookConfig"] = {
            "LocalPath": TENSORS,
            "S3OutputPath": spec.output,
            **_optional("HookParameters", interval),
        }
    if monitoring.aws_debugger and monitoring.profiler:
        fields["ProfilerConfig"] = {
            "S3OutputPath": spec.output,
            "ProfilingIntervalInMilliseconds": _PROFILER_INTERVAL_MS,
        }
    return fields


def _given(name: str, value: int | None) -> dict[str, int]:
    """Return a field unless it was not given; zero is checked as it is."""
    return {} if value is None else {name: value}


def _optional(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}

"""Batch transform jobs: options of the command line → specification → requests → create, stop, follow to the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import translate_errors
from aws.request_check import check
from classifier.contract.driver import TRANSFORM_AMI
from classifier.errors import ConfigError, DataError
from commands import interrupts
from launch.platform.clients import Platform, PlatformOptions
from launch.platform.jobs import Job
from launch.platform.models import named_model_request, resolve_artifact
from launch.platform.monitoring import TRANSFORM_JOBS, JobMonitor, LogTail
from launch.platform.price_list import Use
from launch.platform.prices import Rate, describe_spent, find_rate
from launch.platform.references import CreatedResources, is_refusal
from launch.platform.resources import NO_OPTIONS, ContainerOptions, has_gpu, tag_list
from launch.terminal import command, print_status, unique_name

DEFAULT_INSTANCE = "ml.m5.xlarge"
_BASE_NAME = "image-classifier"
_JSON_LINES = "application/jsonlines"


@dataclass(frozen=True, kw_only=True)
class TransformOptions:
    """A batch transform job as requested on the command line.

    Attributes:
        photos: an ``s3://`` prefix, or a folder for a local job.
        manifest: whether ``photos`` is the address of a manifest, a JSON file that lists objects.
        join_input: whether ``photos`` has JSON Lines instead of photos, and each line is to be joined with its answer.
        output: where the answers go, likewise.
        name: the job's name; default: one with the time in it.
        accept: content type of the answers.
        max_concurrent: photos in flight per instance.
        max_payload_mb: size limit of a photo, MB.
    """

    platform: PlatformOptions
    photos: str
    output: str
    container: ContainerOptions = NO_OPTIONS
    name: str | None = None
    manifest: bool = False
    join_input: bool = False
    accept: str | None = None
    instance_type: str = DEFAULT_INSTANCE
    num_instances: int = 1
    max_concurrent: int = 4
    max_payload_mb: int = 6


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """A batch transform job: every object below ``photos`` is one request, answered by ``NAME.out`` below ``output``.

    With ``join_input``, every line of these objects is one, and the output repeats it with its answer.

    Attributes:
        manifest: whether ``photos`` is the address of a manifest.
        max_concurrent: requests in flight per instance.
        max_payload_mb: size limit of a request, MB.
    """

    job_name: str
    model_name: str
    photos: str
    output: str
    manifest: bool = False
    join_input: bool = False
    content_type: str = "application/x-image"
    accept: str = "application/json"
    instance_type: str = DEFAULT_INSTANCE
    num_instances: int = 1
    max_concurrent: int = 4
    max_payload_mb: int = 6
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def check_transform(model: str, options: TransformOptions) -> None:
    """Check the requests of a job, before anything is sent.

    Raises:
        UserError: as :func:`transform_requests`, except for what only AWS knows; or AWS would refuse a request.
    """
    assumed = replace(options, platform=options.platform.assuming())
    requests = transform_requests(assumed, resolve_artifact(model, assumed.platform), "")
    check(requests, local=options.platform.local)


def transform_requests(options: TransformOptions, data: str, version: str) -> dict[str, Any]:
    """Return the requests by operation, in the order in which they are sent.

    Args:
        data: the model artifact's address.
        version: the artifact's version.

    Raises:
        ConfigError: a local folder is given for a job on AWS, or no image is given, or options exclude each other.
        DataError: the folder of photos does not exist.
        CloudError: no role is given, or IAM has none of that name.
    """
    model = named_model_request(_BASE_NAME, options.container, options.platform, data, version)
    local = options.platform.local
    _check_input(options)
    spec = TransformSpec(
        job_name=options.name or unique_name(_BASE_NAME),
        model_name=model["ModelName"],
        photos=_photos_uri(options.photos, local=local),
        output=options.output if options.output.startswith("s3://") or not local else _file_uri(options.output),
        manifest=options.manifest,
        join_input=options.join_input,
        content_type=_JSON_LINES if options.join_input else "application/x-image",
        accept=options.accept or (_JSON_LINES if options.join_input else "application/json"),
        instance_type=options.instance_type,
        num_instances=options.num_instances,
        max_concurrent=options.max_concurrent,
        max_payload_mb=options.max_payload_mb,
        kms_key=options.container.security.kms_key,
        tags=options.container.tags,
    )
    return {"CreateModel": model, "CreateTransformJob": transform_request(spec)}


def _check_input(options: TransformOptions) -> None:
    if options.platform.local and (options.manifest or options.join_input):
        flag = "--manifest" if options.manifest else "--join-input"
        raise ConfigError(f"{flag} is for jobs on AWS; with --local give a folder of photos")
    if options.join_input and options.accept not in (None, _JSON_LINES):
        raise ConfigError(
            f"--accept {options.accept} can't be joined with JSON Lines: leave --accept or --join-input out"
        )


def _photos_uri(place: str, *, local: bool) -> str:
    if place.startswith("s3://"):
        return place
    if not local:
        raise ConfigError(f"{place} is on this machine, but the job runs on AWS: give s3://BUCKET/PREFIX, or --local")
    if not Path(place).is_dir():
        raise DataError(f"folder {place} does not exist")
    return _file_uri(place)


def _file_uri(place: str) -> str:
    return place if place.startswith("file://") else Path(place).resolve().as_uri()


def transform_request(spec: TransformSpec) -> dict[str, Any]:
    """Return the CreateTransformJob request."""
    resources: dict[str, Any] = {"InstanceType": spec.instance_type, "InstanceCount": spec.num_instances}
    if has_gpu(spec.instance_type):
        resources["TransformAmiVersion"] = TRANSFORM_AMI
    if spec.kms_key:
        resources["VolumeKmsKeyId"] = spec.kms_key
    kind = "ManifestFile" if spec.manifest else "S3Prefix"
    return {
        "TransformJobName": spec.job_name,
        "ModelName": spec.model_name,
        "MaxConcurrentTransforms": spec.max_concurrent,
        "MaxPayloadInMB": spec.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": spec.photos}},
            "ContentType": spec.content_type,
            "SplitType": "Line" if spec.join_input else "None",
        },
        "TransformOutput": {
            "S3OutputPath": spec.output,
            "Accept": spec.accept,
            "AssembleWith": "Line" if spec.join_input else "None",
            **({"KmsKeyId": spec.kms_key} if spec.kms_key else {}),
        },
        "TransformResources": resources,
        **({"DataProcessing": {"JoinSource": "Input"}} if spec.join_input else {}),
        "Tags": tag_list(spec.tags),
    }


def describe_cost(request: Mapping[str, Any], region: str | None) -> str:
    """Return what a job costs on AWS.

    Args:
        request: the CreateTransformJob request.
        region: default: that of the environment.
    """
    return f"{_rate(request, region)}, until all photos are answered; there is no time limit"


def _rate(request: Mapping[str, Any], region: str | None) -> Rate:
    resources = request["TransformResources"]
    return find_rate(Use.TRANSFORM, resources["InstanceType"], resources["InstanceCount"], region)


def stop(platform: Platform, name: str) -> None:
    """Stop a job.

    Raises:
        CloudError: there is no such job, or it has ended.
    """
    with translate_errors(f"transform job {name}"):
        platform.sagemaker.stop_transform_job(TransformJobName=name)
    print_status(f"batch_transform: stopping {name}")


def run(platform: Platform, requests: Mapping[str, Mapping[str, Any]], *, local: bool) -> int:
    """Create the model unless it exists, and the job, and follow the job to its end.

    Args:
        requests: by operation, as returned by :func:`launch.transform.transform_requests`.
        local: whether the job runs on this machine, where nothing is billed.

    Returns:
        The exit code, as of :func:`watch`.

    Raises:
        CloudError: AWS refused a request, and a model that was created for the job was deleted; or as of
            :func:`watch`.
        KeyboardInterrupt: Ctrl-C was pressed before the job was created.
    """
    created, request = CreatedResources(platform.sagemaker), requests["CreateTransformJob"]
    try:
        created.ensure("model", requests["CreateModel"])
        return watch(platform, request, local=local, send=lambda: _send(platform, request, created))
    except KeyboardInterrupt:
        with interrupts.finishing():
            created.undo()
        raise


def find_job(platform: Platform, name: str) -> Mapping[str, Any]:
    """Return a transform job's description.

    Raises:
        CloudError: there is no such job, or AWS can't be asked.
    """
    with translate_errors(f"transform job {name}"):
        return platform.sagemaker.describe_transform_job(TransformJobName=name)


def watch(platform: Platform, job: Mapping[str, Any], *, local: bool, send: Callable[[], object] | None = None) -> int:
    """Follow a job to its end.

    Args:
        job: the CreateTransformJob request, or the job's description.
        local: whether the job runs on this machine, where nothing is billed.
        send: sends the request that creates the job; None if it exists.

    Returns:
        The exit code: 0 if the job completed or was stopped, 1 if it failed, 130 after Ctrl-C.

    Raises:
        CloudError: AWS refused a request or can't be reached; how to stop a job that may run is printed.
        KeyboardInterrupt: Ctrl-C was pressed before the job was created.
    """
    name = job["TransformJobName"]
    tail = LogTail(platform.logs, TRANSFORM_JOBS, f"{name}/")
    monitor = JobMonitor(tail, lambda line: print(line, flush=True), status_key="TransformJobStatus")
    record = _job(platform, job, local=local).run(monitor, send)
    if record is None:
        return 130
    if not local and "TransformStartTime" in record and "TransformEndTime" in record:
        seconds = (record["TransformEndTime"] - record["TransformStartTime"]).total_seconds()
        print(f"cost        {describe_spent(_rate(job, platform.region), seconds)}", flush=True)
    if record["TransformJobStatus"] == "Failed":
        print_status(f"batch_transform: {name} failed: {record.get('FailureReason', 'no reason was given')}")
        return 1
    if record["TransformJobStatus"] == "Stopped":
        reason = record.get("FailureReason", "").removeprefix("stopped ")
        print(f"stopped     {reason or 'on request; SageMaker keeps no answers of a stopped job'}")
    else:
        print(f"output      {record['TransformOutput']['S3OutputPath']}")
    return 0


def _send(platform: Platform, request: Mapping[str, Any], created: CreatedResources) -> None:
    try:
        platform.sagemaker.create_transform_job(**request)
    except ClientError as error:
        # After other errors the job may exist, and needs its model.
        if is_refusal(error):
            created.undo()
        raise


def _job(platform: Platform, request: Mapping[str, Any], *, local: bool) -> Job:
    name = request["TransformJobName"]
    return Job(
        program="batch_transform",
        kind="transform",
        name=name,
        status_key="TransformJobStatus",
        describe=lambda: platform.sagemaker.describe_transform_job(TransformJobName=name),
        interval_s=platform.interval_s,
        describe_cost=lambda _: "this machine" if local else str(_rate(request, platform.region)),
        commands={
            "stop it": f"{command('batch_transform', '--stop', name)}{platform.flags}",
            "watch it": f"{command('batch_transform', '--watch', name)}{platform.flags}",
        },
        latest=request,
    )

"""Batch transform options of the command line, resolved into the job's requests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError, DataError
from launch.platform.clients import PlatformOptions
from launch.platform.models import named_model_request
from launch.platform.resources import NO_OPTIONS, ContainerOptions
from launch.terminal import unique_name
from launch.transform.request import TransformSpec, transform_request

DEFAULT_INSTANCE = "ml.m5.xlarge"
_BASE_NAME = "image-classifier"


@dataclass(frozen=True, kw_only=True)
class TransformOptions:
    """A batch transform job as requested on the command line.

    Attributes:
        photos: an ``s3://`` prefix, or a folder for a local job.
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
    accept: str = "application/json"
    instance_type: str = DEFAULT_INSTANCE
    num_instances: int = 1
    max_concurrent: int = 4
    max_payload_mb: int = 6


def transform_requests(options: TransformOptions, data: str, version: str) -> dict[str, Any]:
    """Return the requests by operation, in the order in which they are sent.

    Args:
        data: the model artifact's address.
        version: the artifact's version.

    Raises:
        ConfigError: a local folder is given for a job on AWS, or no image is given.
        DataError: the folder of photos does not exist.
        CloudError: no role is given, or IAM has none of that name.
    """
    model = named_model_request(_BASE_NAME, options.container, options.platform, data, version)
    local = options.platform.local
    spec = TransformSpec(
        job_name=options.name or unique_name(_BASE_NAME),
        model_name=model["ModelName"],
        photos=_resolve(options.photos, local=local, must_exist=True),
        output=_resolve(options.output, local=local),
        accept=options.accept,
        instance_type=options.instance_type,
        num_instances=options.num_instances,
        max_concurrent=options.max_concurrent,
        max_payload_mb=options.max_payload_mb,
        kms_key=options.container.security.kms_key,
        tags=options.container.tags,
    )
    return {"CreateModel": model, "CreateTransformJob": transform_request(spec)}


def _resolve(place: str, *, local: bool, must_exist: bool = False) -> str:
    if place.startswith("s3://"):
        return place
    if not local:
        raise ConfigError(f"{place} is on this machine, but the job runs on AWS: give s3://BUCKET/PREFIX, or --local")
    path = Path(place).resolve()
    if must_exist and not path.is_dir():
        raise DataError(f"folder {place} does not exist")
    return path.as_uri()

"""SageMaker models: the artifact that a command line names, and the CreateModel request for it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import CloudError, translate_errors
from classifier.errors import ConfigError
from launch.local.storage import is_local, local_path
from launch.platform.clients import PlatformOptions
from launch.platform.resources import NO_SECURITY, ContainerOptions, Security, tag_list

_MAX_BASE_NAME, _DIGEST_CHARS = 50, 12  # of the API's 63 characters, one of which is a hyphen


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: an artifact and the image that serves it.

    Attributes:
        data: address of a ``model.tar.gz``; with ``multi_model``, the prefix below which there are many.
    """

    name: str
    image: str
    role: str
    data: str
    multi_model: bool = False
    security: Security = NO_SECURITY
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def model_request(spec: ModelSpec) -> dict[str, Any]:
    """Return the CreateModel request."""
    container: dict[str, Any] = {
        "Image": spec.image,
        "Mode": "MultiModel" if spec.multi_model else "SingleModel",
        "ModelDataUrl": spec.data,
    }
    if spec.environment:
        container["Environment"] = dict(spec.environment)
    return {
        "ModelName": spec.name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": spec.role,
        "EnableNetworkIsolation": spec.security.network_isolation,
        **spec.security.vpc_config(),
        "Tags": tag_list(spec.tags),
    }


def named_model_request(
    base: str, container: ContainerOptions, platform: PlatformOptions, data: str, version: str, *, multi: bool = False
) -> dict[str, Any]:
    """Return the CreateModel request of an artifact, named after its contents.

    Args:
        base: prefix of the model's name.
        data: the artifact's address.
        version: the artifact's version, as returned by :func:`artifact_version`.
        multi: whether ``data`` is a prefix with many models.

    Raises:
        ConfigError: no image is given.
        CloudError: no role is given, or IAM has none of that name.
    """
    spec = ModelSpec(
        name="",
        image=container.resolve_image(local=platform.local),
        role=container.resolve_role(platform),
        data=data,
        multi_model=multi,
        security=container.security,
        environment=container.environment,
        tags=container.tags,
    )
    request = model_request(spec)
    return {**request, "ModelName": content_name(base, request, version)}


def content_name(base: str, *parts: object) -> str:
    """Return a name that depends only on ``base`` and the JSON of ``parts``, so that the same request is sent once."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{base[:_MAX_BASE_NAME]}-{digest[:_DIGEST_CHARS]}"


def is_content_name(name: str, base: str) -> bool:
    """Whether a name is one that :func:`content_name` returns for ``base``."""
    pattern = f"{re.escape(base[:_MAX_BASE_NAME])}-[0-9a-f]{{{_DIGEST_CHARS}}}"
    return re.fullmatch(pattern, name) is not None


def resolve_artifact(model: str, platform: PlatformOptions) -> str:
    """Return the address of the artifact that MODEL means.

    Args:
        model: an ``s3://`` or ``file://`` address, on this machine a path, or the name of a training job.

    Raises:
        CloudError: there is no such job.
        ConfigError: the job has no model.
    """
    if model.startswith(("s3://", "file://")):
        return model
    if platform.local and Path(model).exists():
        return Path(model).resolve().as_uri()
    return platform.look_up(
        lambda: _artifact_of_job(model, platform),
        f"s3://BUCKET/{model}/output/model.tar.gz",
        "the artifact's address below is made up",
    )


def _artifact_of_job(model: str, platform: PlatformOptions) -> str:
    with translate_errors(f"training job {model}"):
        job = platform.connect().sagemaker.describe_training_job(TrainingJobName=model)
    address = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if not address or job["TrainingJobStatus"] not in ("Completed", "Stopped"):
        raise ConfigError(f"training job {model} is {job['TrainingJobStatus']} and has no model")
    return address


def artifact_version(url: str, platform: PlatformOptions) -> str:
    """Return a string that changes with the artifact at an address: its ETag, or a file's time and size.

    It is a part of the model's name. Where S3 can't be asked and need not be, it is empty.

    Raises:
        CloudError: there is no such object, or S3 can't be reached.
        ConfigError: there is no such file.
    """
    if is_local(url):
        path = local_path(url, "MODEL")
        if not path.exists():
            raise ConfigError(f"{path} does not exist; train.py prints an artifact's address")
        return f"{path.stat().st_mtime_ns}-{path.stat().st_size}"
    return platform.look_up(lambda: _etag(url, platform.region), "", "the names below differ from those of a real run")


def _etag(url: str, region: str | None) -> str:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    with translate_errors(url):
        try:
            return client("s3", region=region).head_object(Bucket=bucket, Key=key)["ETag"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "404":
                raise CloudError(f"{url}: no such object; train.py prints an artifact's address") from None
            raise

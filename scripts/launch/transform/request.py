"""Batch transform specifications and the CreateTransformJob request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from classifier.contract.driver import TRANSFORM_AMI
from launch.platform.resources import has_gpu, tag_list


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """A batch transform job: every object below ``photos`` is one request, answered by ``NAME.out`` below ``output``.

    Attributes:
        max_concurrent: requests in flight per instance.
        max_payload_mb: size limit of a request, MB.
    """

    job_name: str
    model_name: str
    photos: str
    output: str
    content_type: str = "application/x-image"
    accept: str = "application/json"
    instance_type: str = "ml.m5.xlarge"
    num_instances: int = 1
    max_concurrent: int = 4
    max_payload_mb: int = 6
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def transform_request(spec: TransformSpec) -> dict[str, Any]:
    """Return the CreateTransformJob request."""
    resources: dict[str, Any] = {"InstanceType": spec.instance_type, "InstanceCount": spec.num_instances}
    if has_gpu(spec.instance_type):
        resources["TransformAmiVersion"] = TRANSFORM_AMI
    if spec.kms_key:
        resources["VolumeKmsKeyId"] = spec.kms_key
    return {
        "TransformJobName": spec.job_name,
        "ModelName": spec.model_name,
        "MaxConcurrentTransforms": spec.max_concurrent,
        "MaxPayloadInMB": spec.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": spec.photos}},
            "ContentType": spec.content_type,
            "SplitType": "None",
        },
        "TransformOutput": {
            "S3OutputPath": spec.output,
            "Accept": spec.accept,
            "AssembleWith": "None",
            **({"KmsKeyId": spec.kms_key} if spec.kms_key else {}),
        },
        "TransformResources": resources,
        "Tags": tag_list(spec.tags),
    }

"""The tag by which everything that these commands make is found again."""

import re
from collections.abc import Mapping

PROJECT_KEY, PROJECT = "project", "image-classifier"


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The project's own tag, and the caller's, as the SageMaker API wants them."""
    return [{"Key": key, "Value": value} for key, value in {PROJECT_KEY: PROJECT, **tags}.items()]


def is_ours(tags: list[dict[str, str]]) -> bool:
    return {"Key": PROJECT_KEY, "Value": PROJECT} in tags


# The newest hosts that this image's CUDA 12 was seen to run on; without these names hosts have shown driver 470.
INFERENCE_AMI = "al2-ami-sagemaker-inference-gpu-3-1"
TRANSFORM_AMI = "al2-ami-sagemaker-batch-gpu-535"


def has_gpu(instance_type: str) -> bool:
    """``ml.g5.xlarge``, ``ml.p4d.24xlarge``, and not ``ml.m5.large`` or ``ml.inf2.xlarge``."""
    return re.match(r"ml\.[gp]\d", instance_type) is not None

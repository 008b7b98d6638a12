"""What follows from an instance type."""

import re

# The newest hosts that this image's CUDA 12 was seen to run on; without these names hosts have shown driver 470.
INFERENCE_AMI = "al2-ami-sagemaker-inference-gpu-3-1"
TRANSFORM_AMI = "al2-ami-sagemaker-batch-gpu-535"


def has_gpu(instance_type: str) -> bool:
    """``ml.g5.xlarge``, ``ml.p4d.24xlarge``, and not ``ml.m5.large`` or ``ml.inf2.xlarge``."""
    return re.match(r"ml\.[gp]\d", instance_type) is not None

"""What the fork server imports and reads, so that no command that it starts needs to.

Of the project's own modules only the contract, whose models pydantic takes a tenth of a second to build.
"""

import boto3
import jinja2  # noqa: F401
import numpy as np  # noqa: F401
import optuna  # noqa: F401
import PIL.Image  # noqa: F401
import plotly  # noqa: F401
import tqdm  # noqa: F401

import classifier.contract.config
import classifier.contract.findings
import classifier.contract.hyperparameters  # noqa: F401
from support import shared_loader  # noqa: F401

SERVICES = (
    "application-autoscaling",
    "cloudwatch",
    "ecr",
    "iam",
    "logs",
    "pricing",
    "resourcegroupstaggingapi",
    "s3",
    "sagemaker",
    "sagemaker-runtime",
    "service-quotas",
    "sts",
)

for service in SERVICES:
    boto3.Session("none", "none", region_name="us-east-1").client(service).close()  # pyright: ignore

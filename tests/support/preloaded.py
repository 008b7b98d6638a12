"""What the fork server imports and reads, so that no command that it starts needs to.

Each session of boto3 reads megabytes of JSON that describe the services. Here all sessions share one loader, which
parses a file once.
"""

from functools import cache

import boto3
import botocore.session
import jinja2  # noqa: F401
import numpy as np  # noqa: F401
import optuna  # noqa: F401
import PIL.Image  # noqa: F401
import plotly  # noqa: F401
import pydantic  # noqa: F401
import tqdm  # noqa: F401

SERVICES = ("application-autoscaling", "iam", "logs", "s3", "sagemaker", "sagemaker-runtime")

botocore.session.create_loader = cache(botocore.session.create_loader)
for service in SERVICES:
    boto3.Session("none", "none", region_name="us-east-1").client(service).close()  # pyright: ignore

"""AWS, reached: clients, and its refusals in words that say what to do."""

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from aws.errors import CloudError, translate_errors

_RETRIES = 8


def s3_client(*, num_connections: int) -> Any:
    """An S3 client with a connection for each thread.

    Raises:
        CloudError: the profile that was chosen does not exist.
    """
    return client("s3", num_connections=num_connections)


def client(service: str, *, region: str | None = None, num_connections: int = 4) -> Any:
    """A service's client, with botocore's standard retries, which back off.

    Endpoint, region, profile, credentials and retries come from the environment and ``~/.aws``, as with the AWS CLI.

    Raises:
        CloudError: there is no region, or the profile that was chosen does not exist.
    """
    retries: dict[str, Any] = {}
    if "AWS_RETRY_MODE" not in os.environ:
        retries["mode"] = "standard"
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = _RETRIES
    config = Config(max_pool_connections=num_connections, retries=retries, connect_timeout=10, read_timeout=60)  # pyright: ignore[reportArgumentType]
    with translate_errors(_TITLES.get(service, service)):
        # A session of its own: the default one keeps the credentials that it saw first.
        return boto3.Session(region_name=region).client(service, config=config)  # pyright: ignore[reportCallIssue, reportArgumentType]


def check_bucket(s3: Any, uri: str) -> None:
    """
    Raises:
        CloudError: there is no such bucket. Where the credentials may not ask, the platform will tell.
    """
    bucket = uri.removeprefix("s3://").partition("/")[0]
    with translate_errors(uri):
        try:
            s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("403", "AccessDenied"):
                raise


def role_arn(text: str | None, region: str | None = None) -> str:
    """A role's ARN, given so or by its name; without ``text``, by SAGEMAKER_ROLE.

    Raises:
        CloudError: none is given, or IAM knows none of that name.
    """
    text = text or os.environ.get("SAGEMAKER_ROLE")
    if not text:
        raise CloudError(
            "no role is given, which SageMaker needs to read your data and write the model: --role NAME, or set "
            "SAGEMAKER_ROLE; the IAM console makes one for the use case 'SageMaker - Execution'"
        )
    if text.startswith("arn:"):
        return text
    with translate_errors(f"role {text}"):
        return client("iam", region=region).get_role(RoleName=text)["Role"]["Arn"]


_TITLES = {"s3": "S3", "sagemaker": "SageMaker", "iam": "IAM", "ecr": "ECR", "logs": "CloudWatch Logs"}

"""AWS, reached: clients, and its refusals in words that say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from classifier.errors import UserError

_RETRIES = 8


class CloudError(UserError):
    """AWS refuses, or can't be reached."""


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
    with explained(_TITLES.get(service, service)):
        # A session of its own: the default one keeps the credentials that it saw first.
        return boto3.Session(region_name=region).client(service, config=config)  # pyright: ignore[reportCallIssue, reportArgumentType]


def check_bucket(s3: Any, uri: str) -> None:
    """
    Raises:
        CloudError: there is no such bucket. Where the credentials may not ask, the platform will tell.
    """
    bucket = uri.removeprefix("s3://").partition("/")[0]
    with explained(uri):
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
    with explained(f"role {text}"):
        return client("iam", region=region).get_role(RoleName=text)["Role"]["Arn"]


@contextmanager
def explained(what: str, hint: str = "") -> Iterator[None]:
    """Errors of botocore → :class:`CloudError`; ``what`` was being done or asked for."""
    try:
        yield
    except ClientError as error:
        raise CloudError(f"{what}: {_explain(error)}{hint}") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise CloudError(
            f"{what}: no AWS credentials are set: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        ) from None
    except NoRegionError:
        raise CloudError(f"{what}: no region is set: give --region, or set AWS_DEFAULT_REGION") from None
    except ProfileNotFound as error:
        raise CloudError(f"{what}: {error}: see `aws configure list-profiles`") from None
    except (EndpointConnectionError, ConnectTimeoutError, HTTPClientError) as error:
        raise CloudError(f"{what}: {error}; check the network, the region and AWS_ENDPOINT_URL") from None
    except BotoCoreError as error:
        raise CloudError(f"{what}: {error}") from None


_TITLES = {"s3": "S3", "sagemaker": "SageMaker", "iam": "IAM", "ecr": "ECR", "logs": "CloudWatch Logs"}

_MEANINGS = {
    "NoSuchBucket": "there is no such bucket; `aws s3 mb` makes one, in the region where the training will run",
    "404": "there is no such bucket; `aws s3 mb` makes one, in the region where the training will run",
    "AccessDenied": "access is denied: the credentials need s3:ListBucket on the bucket, s3:PutObject and s3:GetObject "
    "on its objects (and s3:DeleteObject for --delete)",
    "403": "access is denied: the credentials need s3:ListBucket on the bucket and s3:PutObject on its objects",
    "ExpiredToken": "the credentials have expired: renew them, with `aws sso login` perhaps",
    "ExpiredTokenException": "the credentials have expired: renew them, with `aws sso login` perhaps",
    "InvalidClientTokenId": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "UnrecognizedClientException": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "InvalidSignatureException": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "NoSuchEntity": "there is no such role: `aws iam list-roles` lists yours",
    "InvalidAccessKeyId": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "IllegalLocationConstraintException": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "SlowDown": "S3 asks to go slower, after several tries: run the same command again, with fewer --jobs",
}


QUOTAS_PAGE = "https://console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas"
_QUOTAS = ("ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException")
_THROTTLES = ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded")


def is_passing(error: Exception) -> bool:
    """Whether the same call may well succeed in a while."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in (*_THROTTLES, "ServiceUnavailable", "InternalFailure")
    return isinstance(error, (EndpointConnectionError, ConnectTimeoutError, HTTPClientError))


def _explain(error: ClientError) -> str:
    detail = error.response.get("Error", {})
    code, message = detail.get("Code", ""), detail.get("Message", "")
    if code in _QUOTAS:
        return f"{message}; ask for more on {QUOTAS_PAGE}, or take another instance type"
    if code in _THROTTLES:
        return f"AWS asks to go slower, after several tries ({code}): run the same command again in a minute"
    if code == "AccessDeniedException":
        return f"access is denied: {message}; add this action to the policies of your user or role"
    known = _MEANINGS.get(code)
    region = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if known and region and "region" in known:
        return f"{known} ({region})"
    return known or f"{code}: {message}"

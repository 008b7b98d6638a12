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
    PartialCredentialsError,
    ProfileNotFound,
)

from classifier.errors import UserError

_RETRIES = 8


class CloudError(UserError):
    """AWS refuses, or can't be reached."""


def s3_client(*, num_connections: int) -> Any:
    """An S3 client with a connection for each thread, and botocore's standard retries, which back off.

    Endpoint, region, profile, credentials and retries come from the environment and ``~/.aws``, as with the AWS CLI.

    Raises:
        CloudError: the profile that was chosen does not exist.
    """
    retries: dict[str, Any] = {}
    if "AWS_RETRY_MODE" not in os.environ:
        retries["mode"] = "standard"
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = _RETRIES
    config = Config(max_pool_connections=num_connections, retries=retries, connect_timeout=10, read_timeout=60)  # pyright: ignore[reportArgumentType]
    with explained("S3"):
        # A session of its own: the default one keeps the credentials that it saw first.
        return boto3.Session().client("s3", config=config)


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
    except ProfileNotFound as error:
        raise CloudError(f"{what}: {error}: see `aws configure list-profiles`") from None
    except (EndpointConnectionError, ConnectTimeoutError, HTTPClientError) as error:
        raise CloudError(f"{what}: {error}; check the network, the region and AWS_ENDPOINT_URL") from None
    except BotoCoreError as error:
        raise CloudError(f"{what}: {error}") from None


_MEANINGS = {
    "NoSuchBucket": "there is no such bucket; `aws s3 mb` makes one, in the region where the training will run",
    "404": "there is no such bucket; `aws s3 mb` makes one, in the region where the training will run",
    "AccessDenied": "access is denied: the credentials need s3:ListBucket on the bucket, s3:PutObject and s3:GetObject "
    "on its objects (and s3:DeleteObject for --delete)",
    "403": "access is denied: the credentials need s3:ListBucket on the bucket and s3:PutObject on its objects",
    "ExpiredToken": "the credentials have expired: renew them, with `aws sso login` perhaps",
    "ExpiredTokenException": "the credentials have expired: renew them, with `aws sso login` perhaps",
    "InvalidAccessKeyId": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "IllegalLocationConstraintException": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set AWS_DEFAULT_REGION to it",
    "SlowDown": "S3 asks to go slower, after several tries: run the same command again, with fewer --jobs",
}


def _explain(error: ClientError) -> str:
    detail = error.response.get("Error", {})
    code, message = detail.get("Code", ""), detail.get("Message", "")
    known = _MEANINGS.get(code)
    region = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if known and region and "region" in known:
        return f"{known} ({region})"
    return known or f"{code}: {message}"

"""AWS, reached: clients, and its refusals in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

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


class CloudError(UserError):
    """AWS refuses, or can't be reached."""


@contextmanager
def translate_errors(what: str, hint: str = "") -> Iterator[None]:
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

"""botocore's errors, translated into messages that say what to do."""

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
    """AWS rejects a request or can't be reached."""


class UnreachableError(CloudError):
    """AWS can't be asked, for lack of credentials, a region, a network or a permission; it has not said no."""


@contextmanager
def translate_errors(what: str, hint: str = "") -> Iterator[None]:
    """Translate botocore's errors into :class:`CloudError`.

    Args:
        what: the resource or service that the calls are about; begins the message.
        hint: ends the message of a rejected request.
    """
    try:
        yield
    except ClientError as error:
        kind = UnreachableError if _is_refused(error) else CloudError
        raise kind(f"{what}: {_explain(error)}{hint}") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise UnreachableError(
            f"{what}: no AWS credentials are set: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        ) from None
    except NoRegionError:
        raise UnreachableError(f"{what}: no region is set: give --region, or set AWS_DEFAULT_REGION") from None
    except ProfileNotFound as error:
        raise CloudError(f"{what}: {error}: see `aws configure list-profiles`") from None
    except (EndpointConnectionError, ConnectTimeoutError, HTTPClientError) as error:
        raise UnreachableError(f"{what}: {error}; check the network, the region and AWS_ENDPOINT_URL") from None
    except BotoCoreError as error:
        raise CloudError(f"{what}: {error}") from None


_MEANINGS = {
    "NoSuchBucket": "there is no such bucket; `aws s3 mb` creates one, in the region where the training will run",
    "404": "there is no such bucket; `aws s3 mb` creates one, in the region where the training will run",
    "AccessDenied": "access is denied: the credentials need s3:ListBucket on the bucket, s3:PutObject and s3:GetObject "
    "on its objects (and s3:DeleteObject for --delete)",
    "403": "access is denied: the credentials need s3:ListBucket on the bucket and s3:PutObject on its objects",
    "ExpiredToken": "the credentials have expired: renew them, e.g. with `aws sso login`",
    "ExpiredTokenException": "the credentials have expired: renew them, e.g. with `aws sso login`",
    "InvalidClientTokenId": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "UnrecognizedClientException": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "InvalidSignatureException": "the secret key does not match the access key: check AWS_SECRET_ACCESS_KEY",
    "NoSuchEntity": "there is no such role: `aws iam list-roles` lists yours",
    "InvalidAccessKeyId": "AWS does not know this access key: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not match the access key: check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong: correct it",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION to it",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_DEFAULT_REGION to it",
    "SlowDown": "S3 still throttles requests after several retries: run the same command again with fewer --jobs",
}
QUOTAS_PAGE = "https://console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas"
_QUOTAS = ("ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException")
_THROTTLES = ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded")


_REFUSALS = (
    *("AccessDenied", "AccessDeniedException", "403", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId"),
    *("UnrecognizedClientException", "InvalidSignatureException", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
)


def _is_refused(error: ClientError) -> bool:
    """Whether AWS did not accept the caller, rather than the request."""
    return error.response.get("Error", {}).get("Code") in _REFUSALS


def is_passing(error: Exception) -> bool:
    """Whether an error is transient: the same call may succeed later."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in (*_THROTTLES, "ServiceUnavailable", "InternalFailure")
    return isinstance(error, (EndpointConnectionError, ConnectTimeoutError, HTTPClientError))


def _explain(error: ClientError) -> str:
    detail = error.response.get("Error", {})
    code, message = detail.get("Code", ""), detail.get("Message", "")
    if code in _QUOTAS:
        return f"{message}; request an increase on {QUOTAS_PAGE}, or use another instance type"
    if code in _THROTTLES:
        return f"AWS still throttles requests after several retries ({code}): run the same command again in a minute"
    if code == "AccessDeniedException":
        return f"access is denied: {message}; add this action to the policies of your user or role"
    known = _MEANINGS.get(code)
    region = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if known and region and "region" in known:
        return f"{known} ({region})"
    return known or f"{code}: {message}"

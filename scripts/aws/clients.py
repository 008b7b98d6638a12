"""AWS clients with retries, and checks of the bucket and role that a command is given."""

import os
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import CloudError, UnreachableError, translate_errors

_MAX_ATTEMPTS = 8
_OPTIONAL_CONNECT_S, _OPTIONAL_READ_S = 3, 10
# As messages name the services.
_TITLES = {"s3": "S3", "sagemaker": "SageMaker", "iam": "IAM", "ecr": "ECR", "logs": "CloudWatch Logs", "sts": "STS"}


def s3_client(*, num_connections: int) -> Any:
    """Create an S3 client for as many threads as connections.

    Raises:
        CloudError: there is no region, or AWS_PROFILE names no profile.
    """
    return client("s3", num_connections=num_connections)


def client(service: str, *, region: str | None = None, num_connections: int = 4, is_optional: bool = False) -> Any:
    """Create a service's client, with botocore's standard retries and backoff.

    Endpoint, region, profile, credentials and retries come from the environment and ``~/.aws``, as with the AWS CLI.

    Args:
        service: botocore's name of the service.
        region: overrides the region of the environment.
        is_optional: whether the command can do without the answers: requests are not retried, and end within seconds.

    Raises:
        CloudError: there is no region, or AWS_PROFILE names no profile.
    """
    import boto3  # noqa: PLC0415 - a local job's supervisor, which asks for no client, starts twice as fast without it
    from botocore.config import Config  # noqa: PLC0415

    retries: dict[str, Any] = {}
    if "AWS_RETRY_MODE" not in os.environ:
        retries["mode"] = "standard"
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = _MAX_ATTEMPTS
    if is_optional:
        retries["total_max_attempts"] = 1
    connect_s, read_s = (_OPTIONAL_CONNECT_S, _OPTIONAL_READ_S) if is_optional else (10, 60)
    config = Config(
        max_pool_connections=num_connections,
        retries=retries,  # pyright: ignore[reportArgumentType]
        connect_timeout=connect_s,
        read_timeout=read_s,
    )
    with translate_errors(_TITLES.get(service, service)):
        # A new session: boto3's default session keeps the first credentials that it finds.
        return boto3.Session(region_name=region).client(service, config=config)  # pyright: ignore[reportCallIssue, reportArgumentType]


def region_name() -> str | None:
    """Return the region of the environment or of ``~/.aws``, or None if there is none."""
    import boto3  # noqa: PLC0415
    from botocore.exceptions import ProfileNotFound  # noqa: PLC0415

    try:
        return boto3.Session().region_name
    except ProfileNotFound:
        return None


def check_bucket(s3: Any, uri: str, *, same_region: bool = True) -> None:
    """Check that the bucket of an ``s3://`` URI exists, in the client's region, where the job will run.

    Denied access passes: the caller may lack ``s3:ListBucket`` while SageMaker's role has all that it needs.

    Raises:
        CloudError: the bucket does not exist, is in another region, or S3 can't be reached.
    """
    bucket = uri.removeprefix("s3://").partition("/")[0]
    with translate_errors(f"s3://{bucket}"):
        try:
            answer = s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("403", "AccessDenied"):
                raise
            answer = error.response
    here = s3.meta.region_name
    region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", here)
    if same_region and region != here:
        raise CloudError(
            f"s3://{bucket} is in {region}, and the job would run in {here}: give --region {region}, or a bucket there"
        )


def check_prefix(s3: Any, uri: str) -> None:
    """Check that there are objects below an ``s3://`` prefix, and that it ends where a folder does.

    S3 compares prefixes by their letters: ``s3://bucket/test`` also means what is in ``test2/``. Denied access passes.

    Raises:
        CloudError: there are no objects, the prefix matches several folders, or S3 can't be reached.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    with translate_errors(uri):
        try:
            found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=10)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("403", "AccessDenied"):
                return
            raise
    folders = [one["Prefix"] for one in found.get("CommonPrefixes", ())]
    names = [*folders, *(one["Key"] for one in found.get("Contents", ()))]
    if not names:
        raise CloudError(f"{uri}: there are no objects; check the address, or upload them with upload_data.py")
    others = [name for name in names if name != f"{prefix}/"]
    if f"{prefix}/" in folders and others:
        raise CloudError(f"{uri} also means s3://{bucket}/{others[0]}: end it with a slash")


def caller_name(region: str | None = None) -> str:
    """Return the name of who calls: a user's, or that of a role's session, which single sign-on sets to the user's.

    Raises:
        CloudError: AWS can't be asked.
    """
    with translate_errors("identity"):
        arn = client("sts", region=region).get_caller_identity()["Arn"]
    return arn.rpartition(":")[2].rpartition("/")[2]


def given_role(text: str | None) -> str:
    """Return the role that was given, an ARN or a name; by default the value of SAGEMAKER_ROLE.

    Raises:
        CloudError: none is given.
    """
    text = text or os.environ.get("SAGEMAKER_ROLE")
    if not text:
        raise CloudError(
            "no role is given, which SageMaker needs to read your data and write the model: pass --role NAME or set "
            "SAGEMAKER_ROLE; the IAM console creates one for the use case 'SageMaker - Execution'"
        )
    return text


def role_arn(name: str, region: str | None = None) -> str:
    """Return the ARN of a role.

    Raises:
        CloudError: IAM has no role of this name, or can't be asked.
    """
    return describe_role(name, region)["Arn"]


def describe_role(name: str, region: str | None = None) -> Mapping[str, Any]:
    """Return IAM's description of a role, with its trust policy.

    Raises:
        CloudError: IAM has no role of this name, or can't be asked.
    """
    with translate_errors(f"role {name}"):
        try:
            return client("iam", region=region).get_role(RoleName=name)["Role"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "AccessDenied":
                raise
            # The code is also S3's, which has other advice.
            raise UnreachableError(
                f"role {name}: your user may not look roles up, which needs iam:GetRole; give the role's ARN instead: "
                f"--role arn:aws:iam::ACCOUNT:role/{name}"
            ) from None

"""Checks of what the commands need in an AWS account: identity, role, buckets, quotas, image, prices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aws.clients import check_bucket, client, describe_role, given_role
from aws.errors import QUOTAS_PAGE, CloudError, UnreachableError, translate_errors
from classifier.errors import ConfigError, UserError
from launch.platform.ecr import ImageUri, check_image
from launch.platform.price_list import Use
from launch.platform.prices import TABLE, find_rate
from launch.platform.resources import all_pages

_SERVICE = "sagemaker.amazonaws.com"


class Mark(Enum):
    """The outcome of a check."""

    PASSED = "✓"
    FAILED = "✗"
    NOT_CHECKED = "?"


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        what: what was checked.
        text: what is there, or what to do.
    """

    mark: Mark
    what: str
    text: str

    def __str__(self) -> str:
        # Some of AWS's messages have line breaks.
        return f"{self.mark.value} {self.what:<10}{' '.join(self.text.split())}"


@dataclass(frozen=True, kw_only=True)
class AccountOptions:
    """What is to be checked.

    Attributes:
        places: ``s3://`` addresses that jobs read or write.
        image: address of the image; None if there is none.
        quotas: the number of instances needed by the name of the quota, as Service Quotas has it.
        instance_type: for training; its price is looked up.
    """

    region: str | None
    role: str | None
    image: str | None
    places: Sequence[str]
    quotas: Mapping[str, int]
    instance_type: str


def check_account(options: AccountOptions) -> Iterator[Finding]:
    """Yield the findings one by one; without an identity there is only one, as nothing else can be asked."""
    account = ""

    def identify() -> str:
        nonlocal account
        account, text = _identity(options.region)
        return text

    identity = _find("identity", identify)
    if identity.mark is not Mark.PASSED:
        yield Finding(Mark.FAILED, identity.what, identity.text.removeprefix("not checked: "))
        return
    yield identity
    yield _find("role", lambda: _role(options.role, account, options.region))
    yield from (_find("bucket", lambda place=place: _bucket(place, options.region)) for place in options.places)
    yield from _quotas(options.quotas, options.region)
    yield _find("image", lambda: _image(options.image, options.region))
    yield _find("prices", lambda: _prices(options.instance_type, options.region))


def _find(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(Mark.PASSED, what, check())
    except UnreachableError as error:
        return Finding(Mark.NOT_CHECKED, what, f"not checked: {error}")
    except UserError as error:
        return Finding(Mark.FAILED, what, str(error))


def _identity(region: str | None) -> tuple[str, str]:
    """Return the account and the description of who asks."""
    with translate_errors("identity"):
        sts = client("sts", region=region)
        caller = sts.get_caller_identity()
        return caller["Account"], f"{caller['Arn']} in {sts.meta.region_name}"


def _role(text: str | None, account: str, region: str | None) -> str:
    role = given_role(text)
    if role.startswith("arn:") and role.split(":")[4] != account:
        raise ConfigError(f"{role} is a role of another account than yours, {account}: give one of this account")
    found = describe_role(role.rpartition("/")[2], region)
    if not _trusts_sagemaker(found.get("AssumeRolePolicyDocument", {})):
        raise ConfigError(
            f"{found['Arn']} does not trust {_SERVICE}, which has to assume it: add the trust policy of docs/aws.md"
        )
    return f"{found['Arn']}, which {_SERVICE} may assume"


def _trusts_sagemaker(document: Mapping[str, Any]) -> bool:
    return any(
        one.get("Effect") == "Allow"
        and {"sts:AssumeRole", "sts:*", "*"} & set(_as_list(one.get("Action", [])))
        and _SERVICE in _as_list(_principal(one).get("Service", []))
        for one in _as_list(document.get("Statement", []))
    )


def _principal(statement: Mapping[str, Any]) -> Mapping[str, Any]:
    principal = statement.get("Principal", {})
    return principal if isinstance(principal, Mapping) else {}


def _as_list(value: Any) -> list[Any]:
    # In policies, a list of one may be written without brackets.
    return value if isinstance(value, list) else [value]


def _bucket(place: str, region: str | None) -> str:
    bucket = place.removeprefix("s3://").partition("/")[0]
    if not place.startswith("s3://") or not bucket:
        raise ConfigError(f"{place}: has to be an address of the form s3://BUCKET/PREFIX")
    s3 = client("s3", region=region)
    check_bucket(s3, place)
    with translate_errors(f"s3://{bucket}"):
        s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    return f"s3://{bucket} is in {s3.meta.region_name}"


def _quotas(wanted: Mapping[str, int], region: str | None) -> Iterator[Finding]:
    try:
        with translate_errors("quotas"):
            api = client("service-quotas", region=region)
            listed = {
                one["QuotaName"]: one["Value"]
                for one in all_pages(api.list_service_quotas, "Quotas", ServiceCode="sagemaker", MaxResults=100)
            }
    except CloudError as error:
        yield Finding(Mark.NOT_CHECKED, "quota", f"not checked: {error}")
        return
    for name, number in wanted.items():
        yield _find("quota", lambda name=name, number=number: _quota(name, number, listed))


def _quota(name: str, number: int, listed: Mapping[str, float]) -> str:
    if name not in listed:
        raise ConfigError(f"{name}: there is no such quota in this region, so that the instance type is not offered")
    value = int(listed[name])
    if value < number:
        raise ConfigError(f"{name}: {value}, and {number} needed; request an increase on {QUOTAS_PAGE}")
    return f"{name}: {value}"


def _image(uri: str | None, region: str | None) -> str:
    if not uri:
        raise ConfigError("none is given: --image URI, or set IMAGE_URI; scripts/build_and_push.sh pushes one")
    image = ImageUri.parse(uri)
    ecr = client("ecr", region=region)
    if image.region != ecr.meta.region_name:
        raise ConfigError(
            f"{image} is in {image.region}, and jobs in {ecr.meta.region_name} can't use it: push it there, or give "
            f"--region {image.region}"
        )
    return f"{image} is for linux/amd64, pushed as {check_image(ecr, image)}"


def _prices(instance_type: str, region: str | None) -> str:
    rate = find_rate(Use.TRAINING, instance_type, 1, region)
    if rate.source.startswith(TABLE):
        raise UnreachableError(f"{rate}; AWS's price list needs pricing:GetProducts")
    return str(rate)

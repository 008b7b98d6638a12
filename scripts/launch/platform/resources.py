"""SageMaker resources: the properties that their requests share, and their description."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import caller_name, given_role, role_arn
from classifier.errors import ConfigError
from launch.local.opt_ml import NO_IMAGE
from launch.platform.clients import PlatformOptions

PROJECT_KEY, PROJECT = "project", "image-classifier"
OWNER_KEY = "owner"
LOCAL_ROLE = "arn:aws:iam::000000000000:role/local"
VARIANT = "AllTraffic"
# Names of the operations without their verb, and the field of their requests that has the resource's name.
KINDS = {
    "model": ("model", "ModelName"),
    "config": ("endpoint_config", "EndpointConfigName"),
    "endpoint": ("endpoint", "EndpointName"),
}


@dataclass(frozen=True, kw_only=True)
class Security:
    """Encryption and network of a resource; without subnets it runs in the platform's own network."""

    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False

    def vpc_config(self) -> dict[str, Any]:
        """Return the ``VpcConfig`` field of a request, or nothing without subnets."""
        if not self.subnets:
            return {}
        return {"VpcConfig": {"SecurityGroupIds": list(self.security_groups), "Subnets": list(self.subnets)}}


NO_SECURITY = Security()


@dataclass(frozen=True, kw_only=True)
class ContainerOptions:
    """Image, role and environment of a resource as given on the command line, before defaults are applied."""

    image: str | None = None
    role: str | None = None
    security: Security = NO_SECURITY
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def resolve_image(self, *, local: bool) -> str:
        """Return the image's URI; on this machine, none means the installed programs.

        Raises:
            ConfigError: no image is given, and the resource is on AWS.
        """
        image = self.image or (None if local else os.environ.get("IMAGE_URI"))
        if image:
            return image
        if local:
            return NO_IMAGE
        raise ConfigError("no image is given: --image URI, or set IMAGE_URI; scripts/build_and_push.sh pushes one")

    def resolve_role(self, platform: PlatformOptions) -> str:
        """Return the ARN of the execution role.

        Raises:
            CloudError: no role is given, or IAM has none of that name.
        """
        if platform.local:
            return LOCAL_ROLE
        name = given_role(self.role)
        if name.startswith("arn:"):
            return name
        return platform.look_up(
            lambda: role_arn(name, platform.region),
            f"arn:aws:iam::000000000000:role/{name}",
            "the account number below is made up",
        )

    def with_owner(self, platform: PlatformOptions) -> "ContainerOptions":
        """Return the same options with the tag ``owner``, the caller's name unless another is given; none locally.

        Raises:
            CloudError: AWS can't be asked who calls.
        """
        if platform.local or OWNER_KEY in self.tags:
            return self
        owner = platform.look_up(lambda: caller_name(platform.region), "", "the tag owner is left out")
        return replace(self, tags={OWNER_KEY: owner, **self.tags}) if owner else self


NO_OPTIONS = ContainerOptions()


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the project's tag and the user's in the API's form."""
    return [{"Key": key, "Value": value} for key, value in {PROJECT_KEY: PROJECT, **tags}.items()]


def has_project_tag(tags: list[dict[str, str]]) -> bool:
    """Whether the tags of a resource include the project's, so that one of these commands created it."""
    return {"Key": PROJECT_KEY, "Value": PROJECT} in tags


def has_owner(tags: list[dict[str, str]], owner: str | None) -> bool:
    """Whether the tags of a resource include this owner; any will do if it is None."""
    return owner is None or {"Key": OWNER_KEY, "Value": owner} in tags


def has_gpu(instance_type: str) -> bool:
    """Whether instances of this type have an NVIDIA GPU: ``ml.g5.xlarge`` has one, ``ml.inf2.xlarge`` has none."""
    return re.match(r"ml\.[gp]\d", instance_type) is not None


def scalable_target(endpoint: str) -> dict[str, str]:
    """Return the fields that identify an endpoint's instance count in requests to Application Auto Scaling."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def describe(sagemaker: Any, kind: str, name: str) -> Mapping[str, Any] | None:
    """Return a resource's description, or None if there is none of that name.

    Args:
        kind: one of :data:`KINDS`.

    Raises:
        ClientError: AWS refused the request for another reason.
    """
    try:
        return call(sagemaker, "describe", kind, name)
    except ClientError as error:
        if is_missing(error):
            return None
        raise


def call(sagemaker: Any, verb: str, kind: str, name: str) -> Mapping[str, Any]:
    """Describe or delete a resource.

    Raises:
        ClientError: AWS refused the request, or there is no such resource.
    """
    operation, key = KINDS[kind]
    return getattr(sagemaker, f"{verb}_{operation}")(**{key: name})


def is_missing(error: ClientError) -> bool:
    """Whether a request was refused because its resource does not exist; the API has no error code of its own."""
    detail = error.response.get("Error", {})
    if detail.get("Code") not in ("ValidationException", "ResourceNotFound", "ResourceNotFoundException"):
        return False
    message = detail.get("Message", "").lower()
    return any(words in message for words in ("could not find", "not found", "does not exist"))


@contextmanager
def ignore_missing() -> Iterator[None]:
    """Ignore that a resource does not exist, any more or yet.

    Raises:
        ClientError: AWS refused a request for another reason.
    """
    try:
        yield
    except ClientError as error:
        if not is_missing(error):
            raise


def all_pages(
    operation: Callable[..., Mapping[str, Any]], key: str, *, token_key: str = "NextToken", **request: Any
) -> Iterator[Any]:
    """Yield the items of all pages of a list operation; a page without items does not end the list.

    Args:
        key: the field of the answers that has the items.
        token_key: the field that has the token of the next page, as CloudWatch Logs spells it.

    Raises:
        ClientError: AWS refused a request.
    """
    token: dict[str, str] = {}
    while True:
        answer = operation(**request, **token)
        yield from answer[key]
        if not answer.get(token_key):
            return
        token = {token_key: answer[token_key]}

"""SageMaker resources: the properties that their requests share, and their creation with rollback."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import given_role, role_arn
from aws.errors import translate_errors
from classifier.errors import ConfigError
from launch.local.opt_ml import NO_IMAGE
from launch.platform.clients import PlatformOptions

PROJECT_KEY, PROJECT = "project", "image-classifier"
LOCAL_ROLE = "arn:aws:iam::000000000000:role/local"
VARIANT = "AllTraffic"
NAME_FIELDS = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}


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


NO_OPTIONS = ContainerOptions()


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the project's tag and the user's in the API's form."""
    return [{"Key": key, "Value": value} for key, value in {PROJECT_KEY: PROJECT, **tags}.items()]


def has_project_tag(tags: list[dict[str, str]]) -> bool:
    """Whether the tags of a resource include the project's, so that one of these commands created it."""
    return {"Key": PROJECT_KEY, "Value": PROJECT} in tags


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


@dataclass
class CreatedResources:
    """The resources that one command has created, so that they can be rolled back.

    Attributes:
        sagemaker: boto3's ``sagemaker`` client, or the local one.
        created: kinds and names of the resources, in the order of their creation.
    """

    sagemaker: Any
    created: list[tuple[str, str]] = field(default_factory=list)

    def ensure(self, kind: str, request: Mapping[str, Any]) -> None:
        """Create a resource unless there is one of that name.

        Args:
            kind: one of :data:`NAME_FIELDS`.
            request: the request that creates it.

        Raises:
            CloudError: AWS refused the request.
        """
        name = request[NAME_FIELDS[kind]]
        with translate_errors(f"{kind.replace('_', ' ')} {name}"):
            if not exists(self.sagemaker, kind, name):
                self.create(kind, request)

    def create(self, kind: str, request: Mapping[str, Any]) -> None:
        """Create a resource and note it for the rollback.

        Raises:
            ClientError: AWS refused the request.
        """
        getattr(self.sagemaker, f"create_{kind}")(**request)
        self.created.append((kind, request[NAME_FIELDS[kind]]))

    def rollback(self) -> None:
        """Delete the resources that were created, the latest first."""
        while self.created:
            kind, name = self.created.pop()
            # Already deleted, perhaps.
            with suppress(ClientError):
                delete(self.sagemaker, kind, name)


def exists(sagemaker: Any, kind: str, name: str) -> bool:
    """Whether there is a resource of this kind and name.

    Raises:
        ClientError: AWS refused the request for another reason.
    """
    try:
        getattr(sagemaker, f"describe_{kind}")(**{NAME_FIELDS[kind]: name})
    except ClientError as error:
        # The API has no error code of its own for a missing resource.
        detail = error.response.get("Error", {})
        if detail.get("Code") in ("ValidationException", "ResourceNotFound", "ResourceNotFoundException"):
            message = detail.get("Message", "").lower()
            if "could not find" in message or "not found" in message or "does not exist" in message:
                return False
        raise
    return True


def delete(sagemaker: Any, kind: str, name: str) -> None:
    """Delete a resource.

    Raises:
        ClientError: AWS refused the request.
    """
    getattr(sagemaker, f"delete_{kind}")(**{NAME_FIELDS[kind]: name})

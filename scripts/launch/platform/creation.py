"""Creation of models, endpoint configs and endpoints, with rollback."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import translate_errors

NAME_FIELDS = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}


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

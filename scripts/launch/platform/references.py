"""References from live endpoints to configs and models. Nothing that a live endpoint references is ever deleted.

Both ways to delete a config or a model, the undoing of a failed command and ``teardown.py``, first ask
:func:`find_references`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.errors import translate_errors
from commands import interrupts
from launch.platform.resources import KINDS, all_pages, call, describe, is_missing

_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True)
class References:
    """What endpoints reference.

    Attributes:
        by_endpoint: for each endpoint, kind and name of its configs and models; an endpoint that is being updated has
            the present ones and the next ones.
    """

    by_endpoint: Mapping[str, frozenset[tuple[str, str]]]

    def user_of(self, kind: str, name: str, *, besides: Collection[str] = ()) -> str | None:
        """Return an endpoint that references a config or a model, or None if there is none.

        Args:
            kind: ``config`` or ``model``.
            besides: endpoints that do not count.
        """
        users = (one for one, used in self.by_endpoint.items() if one not in besides and (kind, name) in used)
        return next(users, None)


def find_references(sagemaker: Any, *, deleted: Collection[str] = ()) -> References:
    """Describe all endpoints of the account, not only the project's, and their configs.

    Args:
        sagemaker: boto3's ``sagemaker`` client, or the local one.
        deleted: endpoints whose deletion was accepted; like those that are being deleted, they reference nothing.

    Raises:
        ClientError: AWS refused a request.
    """
    listed = all_pages(sagemaker.list_endpoints, "Endpoints", MaxResults=100)
    names = [one["EndpointName"] for one in listed if one["EndpointName"] not in deleted]
    return References({name: frozenset(_references(sagemaker, name)) for name in names})


def _references(sagemaker: Any, endpoint: str) -> set[tuple[str, str]]:
    described = describe(sagemaker, "endpoint", endpoint)
    if described is None or described["EndpointStatus"] == "Deleting":
        return set()
    configs = {
        described.get("EndpointConfigName"),
        described.get("PendingDeploymentSummary", {}).get("EndpointConfigName"),
    }
    found: set[tuple[str, str]] = set()
    for name in configs - {None}:
        config = describe(sagemaker, "config", name) or {}
        variants = [*config.get("ProductionVariants", ()), *config.get("ShadowProductionVariants", ())]
        found |= {("config", name), *(("model", one["ModelName"]) for one in variants if "ModelName" in one)}
    return found


@dataclass
class CreatedResources:
    """The models and configs that one command has created, so that they can be deleted again.

    Attributes:
        sagemaker: boto3's ``sagemaker`` client, or the local one.
        created: kinds and names of the resources, in the order of their creation.
    """

    sagemaker: Any
    created: list[tuple[str, str]] = field(default_factory=list)

    def ensure(self, kind: str, request: Mapping[str, Any]) -> None:
        """Create a resource unless there is one of that name.

        Args:
            kind: ``config`` or ``model``.
            request: the request that creates it.

        Raises:
            CloudError: AWS refused the request.
        """
        operation, key = KINDS[kind]
        name = request[key]
        with translate_errors(f"{operation.replace('_', ' ')} {name}"):
            if describe(self.sagemaker, kind, name):
                return
            interrupts.check()
            # Noted first: a request that is interrupted may have been accepted.
            self.created.append((kind, name))
            try:
                getattr(self.sagemaker, f"create_{operation}")(**request)
            except ClientError as error:
                if is_refusal(error):
                    self.created.pop()
                raise

    def undo(self) -> list[str]:
        """Delete what was created, except what a live endpoint references.

        Returns:
            The resources that are left, such as ``model dogs-1``: referenced, or AWS could not be asked.
        """
        created, self.created = self.created[::-1], []
        if not created:
            return []
        try:
            references = find_references(self.sagemaker)
        except (ClientError, BotoCoreError):
            return [f"{kind} {name}" for kind, name in created]
        return [f"{kind} {name}" for kind, name in created if not self._delete(kind, name, references)]

    def _delete(self, kind: str, name: str, references: References) -> bool:
        if references.user_of(kind, name):
            return False
        try:
            call(self.sagemaker, "delete", kind, name)
        except ClientError as error:
            return is_missing(error)
        except BotoCoreError:
            return False
        return True


def is_refusal(error: ClientError) -> bool:
    """Whether an error means that a request was not carried out.

    After an error of the server it may have been; so may one that botocore has repeated, since the answer was lost, and
    whose name is taken by now.
    """
    metadata = error.response.get("ResponseMetadata", {})
    is_taken = error.response.get("Error", {}).get("Code") == "ResourceInUse"
    is_repetition = is_taken and metadata.get("RetryAttempts", 0) > 0
    return metadata.get("HTTPStatusCode", 400) < _FIRST_SERVER_ERROR and not is_repetition

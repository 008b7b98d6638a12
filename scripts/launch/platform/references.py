"""References from live endpoints and running jobs to configs and models. Nothing that is referenced is ever deleted.

Both ways to delete a config or a model, the undoing of a failed command and ``teardown.py``, first ask
:func:`find_references`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.errors import translate_errors
from commands import interrupts
from launch.platform.resources import KINDS, all_pages, call, describe, is_missing

_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True)
class References:
    """What endpoints and running transform jobs reference.

    Attributes:
        by_user: for each of them, such as ``endpoint dogs`` or ``transform dogs-1``, kind and name of its configs and
            models; an endpoint that is being updated has the present ones and the next ones.
    """

    by_user: Mapping[str, frozenset[tuple[str, str]]]

    def user_of(self, kind: str, name: str, *, besides: Collection[str] = ()) -> str | None:
        """Return who references a config or a model, such as ``endpoint dogs``, or None if nobody does.

        Args:
            kind: ``config`` or ``model``.
            besides: users that do not count.
        """
        users = (one for one, used in self.by_user.items() if one not in besides and (kind, name) in used)
        return next(users, None)


def find_references(sagemaker: Any, *, deleted: Collection[str] = ()) -> References:
    """Describe all endpoints and running transform jobs of the account, not only the project's.

    Args:
        sagemaker: boto3's ``sagemaker`` client, or the local one.
        deleted: users, such as ``endpoint dogs``, whose end was accepted; like those that are ending, they reference
            nothing.

    Raises:
        ClientError: AWS refused a request.
    """
    endpoints = all_pages(sagemaker.list_endpoints, "Endpoints", MaxResults=100)
    found = {f"endpoint {name}": _of_endpoint(sagemaker, name) for name in (one["EndpointName"] for one in endpoints)}
    for job in all_pages(sagemaker.list_transform_jobs, "TransformJobSummaries", StatusEquals="InProgress"):
        name = job["TransformJobName"]
        model = sagemaker.describe_transform_job(TransformJobName=name)["ModelName"]
        found[f"transform {name}"] = {("model", model)}
    return References({user: frozenset(used) for user, used in found.items() if user not in deleted})


def _of_endpoint(sagemaker: Any, endpoint: str) -> set[tuple[str, str]]:
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
        if not all("ModelName" in one for one in variants):
            found |= {("model", model) for model in _models_of_components(sagemaker, endpoint)}
    return found


def _models_of_components(sagemaker: Any, endpoint: str) -> Iterator[str]:
    """Yield the models of an endpoint's inference components, which only variants without a model can have."""
    for one in all_pages(sagemaker.list_inference_components, "InferenceComponents", EndpointNameEquals=endpoint):
        described = sagemaker.describe_inference_component(InferenceComponentName=one["InferenceComponentName"])
        if "ModelName" in described.get("Specification", {}):
            yield described["Specification"]["ModelName"]


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
        """Delete what was created, except what a live endpoint or a running job references.

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

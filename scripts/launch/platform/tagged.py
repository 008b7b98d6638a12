"""Identification of the project's resources by their tags."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.clients import client
from aws.errors import CloudError
from launch.platform.resources import OWNER_KEY, PROJECT, PROJECT_KEY, has_owner, has_project_tag, is_missing

# The tagging API does not know new resources and tags at once.
_SETTLED = timedelta(minutes=15)


@dataclass
class TaggedResources:
    """Knows which resources have the project's tag, and an owner's.

    On AWS, the tagging API lists them by a few requests; only what is new is asked for its tags. Where the tagging API
    is not allowed, and on this machine, each resource is asked for them.

    Attributes:
        sagemaker: boto3's ``sagemaker`` client, or the local one.
        region: AWS's region; None on this machine.
        owner: only resources with this value of the tag ``owner``; None for all.
    """

    sagemaker: Any
    region: str | None
    owner: str | None = None
    _listed: set[str] | None = field(default=None, init=False)
    _is_listed: bool = field(default=False, init=False)

    def has(self, arn: str, changed: datetime | None) -> bool:
        """Whether a resource is one of them.

        Args:
            changed: when it was created or last changed.

        Raises:
            ClientError: AWS refused a request.
        """
        listed = self._list()
        if listed is None:
            return self._ask(arn)
        is_new = changed is None or datetime.now(UTC) - changed < _SETTLED
        return arn.lower() in listed or (is_new and self._ask(arn))

    def _ask(self, arn: str) -> bool:
        try:
            tags = self.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        except ClientError as error:
            # Deleted by somebody else since it was listed.
            if is_missing(error):
                return False
            raise
        return has_project_tag(tags) and has_owner(tags, self.owner)

    def _list(self) -> set[str] | None:
        if not self._is_listed:
            self._is_listed = True
            self._listed = None if self.region is None else self._request()
        return self._listed

    def _request(self) -> set[str] | None:
        filters: list[Mapping[str, Any]] = [{"Key": PROJECT_KEY, "Values": [PROJECT]}]
        if self.owner is not None:
            filters.append({"Key": OWNER_KEY, "Values": [self.owner]})
        try:
            tagging = client("resourcegroupstaggingapi", region=self.region)
            pages = tagging.get_paginator("get_resources").paginate(
                TagFilters=filters, ResourceTypeFilters=["sagemaker"]
            )
            return {one["ResourceARN"].lower() for page in pages for one in page["ResourceTagMappingList"]}
        except (ClientError, BotoCoreError, CloudError):
            return None

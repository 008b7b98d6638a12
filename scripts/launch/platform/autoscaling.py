"""Registration of endpoints with Application Auto Scaling: reading, changing and removing it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import translate_errors
from launch.platform.resources import scalable_target

Request = Mapping[str, Any]


@dataclass(frozen=True)
class ScalingState:
    """A registration as the requests that make it; without a target there is none.

    Attributes:
        target: the RegisterScalableTarget request.
        policies: the PutScalingPolicy requests.
        actions: the PutScheduledAction requests.
    """

    target: Request | None = None
    policies: tuple[Request, ...] = ()
    actions: tuple[Request, ...] = ()

    def with_policy(self, target: Request, policy: Request) -> "ScalingState":
        """Return this registration with other limits and a policy, which replaces one of the same name."""
        others = self.without_policy(policy["PolicyName"])
        return ScalingState(target, (*others.policies, policy), self.actions)

    def without_policy(self, name: str) -> "ScalingState":
        """Return this registration without a policy; nothing if then nothing scales the endpoint."""
        policies = tuple(one for one in self.policies if one["PolicyName"] != name)
        return ScalingState(self.target, policies, self.actions) if policies or self.actions else NO_REGISTRATION


NO_REGISTRATION = ScalingState()


class Autoscaling:
    """The registration of one endpoint.

    Args:
        endpoint: the endpoint's name.
        region: overrides the region of the environment.
    """

    def __init__(self, endpoint: str, region: str | None) -> None:
        self._client = client("application-autoscaling", region=region)
        self._what = f"scaling of {endpoint}"
        self._target = scalable_target(endpoint)

    def read(self) -> ScalingState:
        """Return the present registration.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        service, resource = self._target["ServiceNamespace"], self._target["ResourceId"]
        with translate_errors(self._what):
            targets = self._items("describe_scalable_targets", "ScalableTargets", service, ResourceIds=[resource])
            if not targets:
                return NO_REGISTRATION
            policies = self._items("describe_scaling_policies", "ScalingPolicies", service, ResourceId=resource)
            actions = self._items("describe_scheduled_actions", "ScheduledActions", service, ResourceId=resource)
        return ScalingState(
            self._as_request("RegisterScalableTarget", targets[0]),
            tuple(self._as_request("PutScalingPolicy", one) for one in policies),
            tuple(self._as_request("PutScheduledAction", one) for one in actions),
        )

    def change(self, before: ScalingState, after: ScalingState) -> None:
        """Make another registration of the present one.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        if after.target is None:
            if before.target is not None:
                self.deregister()
            return
        kept = {one["PolicyName"] for one in after.policies}
        with translate_errors(self._what):
            self._client.register_scalable_target(**after.target)
            for policy in after.policies:
                self._client.put_scaling_policy(**policy)
            for policy in before.policies:
                if policy["PolicyName"] not in kept:
                    self._client.delete_scaling_policy(**self._target, PolicyName=policy["PolicyName"])
            for action in after.actions:
                self._client.put_scheduled_action(**action)

    def deregister(self) -> None:
        """Remove the registration with its policies and scheduled actions, if there is one.

        Raises:
            CloudError: AWS refused the request or can't be reached.
        """
        with translate_errors(self._what):
            try:
                self._client.deregister_scalable_target(**self._target)
            except ClientError as error:
                # Most endpoints do not scale.
                if "no scalable target" not in error.response.get("Error", {}).get("Message", "").lower():
                    raise

    def _items(self, operation: str, key: str, service: str, **request: Any) -> list[Request]:
        dimension = self._target["ScalableDimension"]
        pages = self._client.get_paginator(operation).paginate(
            ServiceNamespace=service, ScalableDimension=dimension, **request
        )
        return [one for page in pages for one in page[key]]

    def _as_request(self, operation: str, described: Request) -> Request:
        """Keep the fields of a description that the request has as well."""
        members = self._client.meta.service_model.operation_model(operation).input_shape.members
        # The service's own role, which it does not accept in a request.
        return {key: value for key, value in described.items() if key in members and key != "RoleARN"}

"""Registration of endpoints with Application Auto Scaling: reading, changing and removing it.

Target tracking does not start the first instance of an endpoint that has none: without instances there is no metric per
instance. A step policy does, started by a CloudWatch alarm. Both have one name, :func:`wake_name`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws.clients import client
from aws.errors import translate_errors
from launch.platform.resources import scalable_target

Request = Mapping[str, Any]
# What these commands say about an alarm, its action apart.
ALARM_FIELDS = (
    *("AlarmName", "AlarmDescription", "Namespace", "MetricName", "Dimensions", "Statistic", "Period"),
    *("EvaluationPeriods", "DatapointsToAlarm", "Threshold", "ComparisonOperator", "TreatMissingData"),
)


@dataclass(frozen=True)
class ScalingState:
    """A registration as the requests that make it; without a target there is none.

    Attributes:
        target: the RegisterScalableTarget request.
        policies: the PutScalingPolicy requests.
        actions: the PutScheduledAction requests.
        alarm: the PutMetricAlarm request, without its action, which is the policy of its name. It exists independently
            of the registration. One whose content is not known, or without its action, has only its name.
    """

    target: Request | None = None
    policies: tuple[Request, ...] = ()
    actions: tuple[Request, ...] = ()
    alarm: Request | None = None

    def with_policies(
        self, names: Collection[str], target: Request, policies: Collection[Request], alarm: Request | None
    ) -> "ScalingState":
        """Return this registration with other limits, and with policies and an alarm in the place of those of names."""
        found = (*self._others(names), *policies)
        return ScalingState(target, tuple(sorted(found, key=_policy_name)), self.actions, alarm)

    def without_policies(self, names: Collection[str]) -> "ScalingState":
        """Return this registration without policies and the alarm; nothing if then nothing scales the endpoint."""
        others = self._others(names)
        return ScalingState(self.target, others, self.actions) if others or self.actions else NO_REGISTRATION

    def _others(self, names: Collection[str]) -> tuple[Request, ...]:
        return tuple(one for one in self.policies if one["PolicyName"] not in names)


NO_REGISTRATION = ScalingState()


def wake_name(endpoint: str) -> str:
    """Return the name of the policy that starts an endpoint's first instance, and of the alarm that triggers it."""
    return f"{endpoint}-wake"


def _policy_name(policy: Request) -> str:
    return policy["PolicyName"]


class Autoscaling:
    """The registration of one endpoint.

    Args:
        endpoint: the endpoint's name.
        region: overrides the region of the environment.
    """

    def __init__(self, endpoint: str, region: str | None) -> None:
        self._region = region
        self._client = client("application-autoscaling", region=region)
        self._wake = wake_name(endpoint)
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
        alarms = [self._read_alarm(one["PolicyARN"]) for one in policies if one["PolicyName"] == self._wake]
        return ScalingState(
            self._as_request("RegisterScalableTarget", targets[0]),
            tuple(self._as_request("PutScalingPolicy", one) for one in sorted(policies, key=_policy_name)),
            tuple(self._as_request("PutScheduledAction", one) for one in actions),
            alarms[0] if alarms else None,
        )

    def change(self, before: ScalingState, after: ScalingState) -> None:
        """Make another registration of the present one.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        arns: dict[str, str] = {}
        if after.target is not None:
            arns = self._register(before, after)
        elif before.target is not None:
            self.deregister()
        if after.alarm is not None:
            self._put_alarm(after.alarm, arns[self._wake])
        elif before.alarm is not None:
            self.delete_alarm()

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

    def delete_alarm(self) -> None:
        """Remove the alarm that triggers the start of the first instance, if there is one.

        Raises:
            CloudError: AWS refused the request or can't be reached.
        """
        with translate_errors(f"alarm {self._wake}"):
            try:
                self._cloudwatch.delete_alarms(AlarmNames=[self._wake])
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in ("ResourceNotFound", "ResourceNotFoundException"):
                    raise

    def _register(self, before: ScalingState, after: ScalingState) -> dict[str, str]:
        """Register, and return the ARNs of the policies by their names."""
        assert after.target is not None
        kept = {one["PolicyName"] for one in after.policies}
        with translate_errors(self._what):
            self._client.register_scalable_target(**after.target)
            arns = {one["PolicyName"]: self._client.put_scaling_policy(**one)["PolicyARN"] for one in after.policies}
            for policy in before.policies:
                if policy["PolicyName"] not in kept:
                    self._client.delete_scaling_policy(**self._target, PolicyName=policy["PolicyName"])
            for action in after.actions:
                self._client.put_scheduled_action(**action)
        return arns

    def _read_alarm(self, policy_arn: str) -> Request | None:
        """Return the alarm of a policy; one that can't be described, or does not trigger the policy, as its name."""
        unknown = {"AlarmName": self._wake}
        try:
            found = self._cloudwatch.describe_alarms(AlarmNames=[self._wake])["MetricAlarms"]
        except (ClientError, BotoCoreError):
            return unknown
        if not found:
            return None
        if policy_arn not in found[0].get("AlarmActions", ()):
            return unknown
        return {key: found[0][key] for key in ALARM_FIELDS if key in found[0]}

    def _put_alarm(self, alarm: Request, policy_arn: str) -> None:
        with translate_errors(f"alarm {self._wake}"):
            self._cloudwatch.put_metric_alarm(**{**alarm, "AlarmActions": [policy_arn]})

    @cached_property
    def _cloudwatch(self) -> Any:
        return client("cloudwatch", region=self._region)

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

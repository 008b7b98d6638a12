"""Autoscaling of an endpoint through a deployment: read before, paused where an update needs it, applied after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws.errors import CloudError
from launch.endpoint.request import policy_name
from launch.platform.autoscaling import ALARM_FIELDS, NO_REGISTRATION, Autoscaling, ScalingState, wake_name
from launch.terminal import as_json, print_status


@dataclass
class EndpointScaling:
    """The scaling that one endpoint had, has at the moment, and is to have.

    Policies and scheduled actions that other programs have attached are kept.

    Attributes:
        autoscaling: the endpoint's registration.
        endpoint: the endpoint's name.
        requests: of the deployment; this command's policies and its alarm that are not among them are removed.
    """

    autoscaling: Autoscaling
    endpoint: str
    requests: Mapping[str, Any]
    _before: ScalingState = NO_REGISTRATION
    _present: ScalingState = NO_REGISTRATION

    def read(self) -> None:
        """Read the present registration; if that is not allowed, print so, and it is only added to."""
        try:
            self._before = self._present = self.autoscaling.read()
        except CloudError as error:
            print_status(f"deploy: {error}; if the endpoint scales, this command only adds to it")

    def pause(self) -> None:
        """Remove the registration: AWS refuses to change the instance type of a registered endpoint.

        Raises:
            CloudError: AWS refused the request.
        """
        if self._present.target is not None:
            self.autoscaling.deregister()
            # The alarm stays, without its action.
            self._present = ScalingState(alarm=self._present.alarm)

    def resume(self) -> None:
        """Register the endpoint again as it was before :meth:`pause`; a failure is printed."""
        if self._present == self._before:
            return
        try:
            self.autoscaling.change(self._present, self._before)
            self._present = self._before
        except CloudError as error:
            print_status(f"deploy: {error}; the endpoint no longer scales")

    def apply(self) -> None:
        """Make the registration what the command line asks for.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        after = self._wanted()
        if after != self._present:
            self.autoscaling.change(self._present, after)
        self._before = self._present = after

    def print_lost(self) -> None:
        """Print the requests of the registration that was removed and not made again."""
        if self._present.target is None and self._before.target is not None:
            before = self._before
            print_status(f"deploy: the scaling of {self.endpoint} was removed for the update; it was")
            print_status(as_json([before.target, *before.policies, *before.actions]))

    def _wanted(self) -> ScalingState:
        own = (policy_name(self.endpoint), wake_name(self.endpoint))
        if "PutScalingPolicy" not in self.requests:
            return self._before.without_policies(own)
        target, policies = self.requests["RegisterScalableTarget"], self.requests["PutScalingPolicy"]
        alarm = self.requests.get("PutMetricAlarm")
        fields = {key: alarm[key] for key in ALARM_FIELDS} if alarm else None
        return self._before.with_policies(own, target, policies, fields)

"""Deployment of an endpoint: creation or update, the wait until it is in service, rollback on failure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws.errors import translate_errors
from classifier.errors import UserError
from launch.platform.clients import Platform
from launch.platform.monitoring import ENDPOINTS, LogTail, describe_last_lines, wait
from launch.platform.resources import CreatedResources, exists

_TRANSIENT = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


@dataclass(frozen=True)
class Deployment:
    """Deploys one endpoint.

    Attributes:
        created: the resources created so far, rolled back where the endpoint fails.
        print_line: prints a line of progress.
    """

    platform: Platform
    created: CreatedResources
    print_line: Callable[[str], object]

    def run(self, requests: Mapping[str, Mapping[str, Any]]) -> None:
        """Create the model and the config unless they exist, and bring the endpoint into service with them.

        Args:
            requests: by operation, as returned by :func:`launch.endpoint.options.endpoint_requests`.

        Raises:
            UserError: the endpoint failed; the message has the reason and the end of its log, and what this command
                had created was deleted.
            CloudError: AWS refused a request or can't be reached.
        """
        self.created.ensure("model", requests["CreateModel"])
        self.created.ensure("endpoint_config", requests["CreateEndpointConfig"])
        self._bring_up(requests["CreateEndpoint"], requests["UpdateEndpoint"])

    def _bring_up(self, create: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        name, config = create["EndpointName"], create["EndpointConfigName"]
        before = self._describe_stable(name)
        if before and before["EndpointStatus"] == "InService" and before["EndpointConfigName"] == config:
            self.print_line(f"endpoint    {name} is already in service with this model and configuration")
            return
        with translate_errors(f"endpoint {name}"):
            if before and before["EndpointStatus"] == "InService":
                self.platform.sagemaker.update_endpoint(**update)
            else:
                if before:
                    self._delete_failed(name, before)
                self.created.create("endpoint", create)
        self._await_in_service(name, config)

    def _describe_stable(self, name: str) -> Mapping[str, Any] | None:
        """Return the endpoint's description once no operation is in progress, or None if there is no such endpoint."""
        with translate_errors(f"endpoint {name}"):
            if not exists(self.platform.sagemaker, "endpoint", name):
                return None
        return self._wait(name, already_printed=("InService",))

    def _wait(self, name: str, already_printed: Sequence[str] = ()) -> Mapping[str, Any]:
        printed = list(already_printed)

        def show(record: Mapping[str, Any]) -> None:
            if [record["EndpointStatus"]] != printed[-1:]:
                printed.append(record["EndpointStatus"])
                self.print_line(f"endpoint    {name}: {record['EndpointStatus']}")

        return wait(
            lambda: self.platform.sagemaker.describe_endpoint(EndpointName=name),
            what=f"endpoint {name}",
            done=lambda record: record["EndpointStatus"] not in _TRANSIENT,
            each=show,
            interval_s=self.platform.interval_s,
        )

    def _await_in_service(self, name: str, config: str) -> None:
        record = self._wait(name)
        is_serving = record["EndpointStatus"] == "InService"
        if is_serving and record["EndpointConfigName"] == config:
            return
        reason = record.get("FailureReason", "no reason was given")
        # Before the rollback, which deletes the endpoint and, on this machine, its log.
        log = describe_last_lines(LogTail(self.platform.logs, f"{ENDPOINTS}/{name}"))
        self.created.rollback()
        state = "the previous model is still being served" if is_serving else "its resources were deleted"
        raise UserError(f"endpoint {name} failed: {reason}; {state}{log}")

    def _delete_failed(self, name: str, before: Mapping[str, Any]) -> None:
        self.print_line(f"endpoint    {name} was {before['EndpointStatus']}: replacing it")
        self.platform.sagemaker.delete_endpoint(EndpointName=name)
        wait(
            lambda: {"is_gone": not exists(self.platform.sagemaker, "endpoint", name)},
            what=f"endpoint {name}",
            done=lambda record: record["is_gone"],
            interval_s=self.platform.interval_s,
        )

"""Deployment of an endpoint: creation or update, the wait until it is in service, undoing on failure.

Nothing that a live endpoint references is ever deleted (:mod:`launch.platform.references`). Once AWS has accepted the
creation or the update, nothing at all is undone until a description shows that it has failed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import CloudError, translate_errors
from classifier.errors import ConfigError, UserError
from commands import interrupts
from launch.endpoint.scaling import EndpointScaling
from launch.platform.clients import Platform
from launch.platform.monitoring import ENDPOINTS, LogTail, describe_last_lines, wait
from launch.platform.references import CreatedResources, is_refusal
from launch.platform.resources import PROJECT, PROJECT_KEY, VARIANT, describe, has_project_tag, tag_list
from launch.terminal import command

_COUNT = {"VariantPropertyType": "DesiredInstanceCount"}
_UPDATING = {"Updating", "RollingBack"}
_TRANSIENT = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
Request = Mapping[str, Any]


@dataclass
class Deployment:
    """Deploys one endpoint.

    Attributes:
        requests: by operation, as returned by :func:`launch.endpoint.options.endpoint_requests`.
        created: the model and the config that this command has created.
        scaling: the endpoint's autoscaling, where the platform has it.
        take_over: whether the endpoint may be one that these commands have not created.
        print_line: prints a line of progress.
        pending: ``creation`` or ``update`` while one was sent and its outcome is not known.
        is_accepted: whether AWS has answered that it carries out what is pending.
        is_in_service: whether the endpoint is in service with the config of this deployment.
        latest: the endpoint's latest description.
    """

    platform: Platform
    requests: Mapping[str, Request]
    created: CreatedResources
    scaling: EndpointScaling | None
    take_over: bool
    print_line: Callable[[str], object]
    pending: str = ""
    is_accepted: bool = False
    is_in_service: bool = False
    latest: Request | None = None
    _is_unchanged: bool = False
    _seen: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.requests["CreateEndpoint"]["EndpointName"]

    @property
    def config(self) -> str:
        """The name of the endpoint config to deploy."""
        return self.requests["CreateEndpoint"]["EndpointConfigName"]

    def run(self) -> None:
        """Create the model and the config unless they exist, and bring the endpoint into service with them.

        Raises:
            ConfigError: the endpoint was not created by these commands.
            UserError: the endpoint failed; the message has the reason and the end of its log, and what this command
                had created was deleted unless a live endpoint references it.
            CloudError: AWS refused a request or can't be reached.
        """
        with translate_errors(f"endpoint {self.name}"):
            found = describe(self.platform.sagemaker, "endpoint", self.name)
        is_foreign = found is not None and self._is_foreign(found)
        before = self._settle(found)
        self.created.ensure("model", self.requests["CreateModel"])
        self.created.ensure("config", self.requests["CreateEndpointConfig"])
        self._bring_up(before)
        if is_foreign and self.latest:
            with translate_errors(f"endpoint {self.name}"):
                # From now on teardown.py lists it.
                self.platform.sagemaker.add_tags(ResourceArn=self.latest["EndpointArn"], Tags=tag_list({}))

    def resize(self) -> None:
        """Set the number of instances that was asked for, where nothing else of the endpoint has changed.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        if not self._is_unchanged or _COUNT not in self.requests["UpdateEndpoint"]["ExcludeRetainedVariantProperties"]:
            return
        count = self.requests["CreateEndpointConfig"]["ProductionVariants"][0].get("InitialInstanceCount")
        present = ((self.latest or {}).get("ProductionVariants") or [{}])[0].get("DesiredInstanceCount")
        if count is None or present in (None, count):
            return
        with translate_errors(f"endpoint {self.name}"):
            self.platform.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=self.name,
                DesiredWeightsAndCapacities=[{"VariantName": VARIANT, "DesiredInstanceCount": count}],
            )
        self._wait()

    def undo(self) -> list[str]:
        """Delete what this command has created, unless it is in service, or a creation or an update may go on.

        Returns:
            The models and configs that are left and that nothing is known to need.
        """
        return [] if self.pending or self.is_in_service else self.created.undo()

    def _bring_up(self, before: Request | None) -> None:
        self.latest = before
        if before and self.scaling:
            self.scaling.read()
        if before and before["EndpointStatus"] == "InService" and before["EndpointConfigName"] == self.config:
            self.is_in_service = True
            self._is_unchanged = True
            self.print_line(f"endpoint    {self.name} is already in service with this model and configuration")
        elif before and before["EndpointStatus"] != "Failed":
            self._update(before)
        else:
            self._create(before)

    def _create(self, before: Request | None) -> None:
        if before:
            self._delete_failed()
        self.latest = None
        self._send("creation", self.platform.sagemaker.create_endpoint, self.requests["CreateEndpoint"])
        record = self._wait()
        if self._is_deployed(record):
            return
        has_failed = record["EndpointStatus"] == "Failed"
        raise UserError(self._describe_failure(record, self._remove_failed if has_failed else _keep_all))

    def _update(self, before: Request) -> None:
        try:
            if self.scaling and self._changes_instance_type(before):
                self.scaling.pause()
            self._send("update", self.platform.sagemaker.update_endpoint, self.requests["UpdateEndpoint"])
        except BaseException:
            if not self.pending and self.scaling:
                with interrupts.finishing():
                    self.scaling.resume()
            raise
        record = self._wait()
        if self._is_deployed(record):
            return
        has_ended = self._has_ended(before, record)
        raise UserError(self._describe_failure(record, self._keep_previous if has_ended else _keep_all))

    def _has_ended(self, before: Request, record: Request) -> bool:
        """Whether an update is known to be over; the first description after it may still be that of before."""
        has_reason = record.get("FailureReason") not in (None, before.get("FailureReason"))
        is_known = has_reason or bool(_UPDATING & self._seen)
        return record["EndpointStatus"] == "Failed" or (record["EndpointStatus"] == "InService" and is_known)

    def _send(self, what: str, operation: Callable[..., object], request: Request) -> None:
        """Send the request that starts or changes the endpoint.

        Raises:
            CloudError: AWS refused it, or the answer was lost.
        """
        with translate_errors(f"endpoint {self.name}"), interrupts.deferred():
            # Set first: a request without an answer may have been accepted.
            self.pending = what
            try:
                operation(**request)
            except ClientError as error:
                if not self._is_repetition(error):
                    if is_refusal(error):
                        self.pending = ""
                    raise
            self.is_accepted = True

    def _is_repetition(self, error: ClientError) -> bool:
        """Whether a request was refused because AWS had accepted it before, and only its answer was lost."""
        if error.response.get("Error", {}).get("Code") not in ("ValidationException", "ResourceInUse"):
            return False
        found = describe(self.platform.sagemaker, "endpoint", self.name) or {}
        pending = found.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
        return self.config in (found.get("EndpointConfigName"), pending)

    def _is_deployed(self, record: Request) -> bool:
        if record["EndpointStatus"] == "InService" and record["EndpointConfigName"] == self.config:
            self.pending, self.is_in_service = "", True
        return self.is_in_service

    def _describe_failure(self, record: Request, clean_up: Callable[[], str]) -> str:
        """Clean up, and return the error message, with the end of the log."""
        reason = record.get("FailureReason") or f"it is {record['EndpointStatus']}, and no reason was given"
        # Before the endpoint is deleted, which on this machine deletes its log.
        log = describe_last_lines(LogTail(self.platform.logs, f"{ENDPOINTS}/{self.name}"))
        return f"endpoint {self.name} failed: {reason}; {clean_up()}{log}"

    def _remove_failed(self) -> str:
        self.pending = ""
        try:
            self._delete_failed()
        except CloudError as error:
            return f"it can't be deleted ({error}), {command('teardown', '--name', self.name)} tries again"
        self.latest = None
        left = self.created.undo()
        return f"it was deleted, but not {', '.join(left)}" if left else "its resources were deleted"

    def _keep_previous(self) -> str:
        self.pending = ""
        self.created.undo()
        if self.latest is None or self.latest["EndpointStatus"] == "Failed":
            return "it no longer serves; the same command replaces it"
        if self.scaling:
            self.scaling.resume()
        return "the previous model is still being served"

    def _is_foreign(self, found: Request) -> bool:
        """Whether another program has created the endpoint.

        Raises:
            ConfigError: so it is, and it is not to be taken over.
        """
        with translate_errors(f"endpoint {self.name}"):
            if has_project_tag(self.platform.sagemaker.list_tags(ResourceArn=found["EndpointArn"])["Tags"]):
                return False
        if self.take_over:
            return True
        raise ConfigError(
            f"endpoint {self.name} exists and was not created by deploy.py (it has no tag {PROJECT_KEY}={PROJECT}): "
            "give another --name, or --take-over to replace what it serves"
        )

    def _changes_instance_type(self, before: Request) -> bool:
        with translate_errors(f"endpoint {self.name}"):
            config = describe(self.platform.sagemaker, "config", before["EndpointConfigName"])
        wanted = self.requests["CreateEndpointConfig"]["ProductionVariants"][0].get("InstanceType")
        return config is None or config["ProductionVariants"][0].get("InstanceType") != wanted

    def _settle(self, found: Request | None) -> Request | None:
        """Return the endpoint's description once no operation is in progress, or None if there is no such endpoint."""
        if found is None or found["EndpointStatus"] not in _TRANSIENT:
            return found
        if found["EndpointStatus"] == "Deleting":
            self._await_deletion()
            return None
        return self._wait()

    def _wait(self) -> Request:
        self._seen.clear()
        printed = ""

        def show(record: Request) -> None:
            nonlocal printed
            self.latest = record
            self._seen.add(record["EndpointStatus"])
            if record["EndpointStatus"] != printed:
                printed = record["EndpointStatus"]
                self.print_line(f"endpoint    {self.name}: {printed}")

        return wait(
            lambda: self.platform.sagemaker.describe_endpoint(EndpointName=self.name),
            what=f"endpoint {self.name}",
            done=lambda record: record["EndpointStatus"] not in _TRANSIENT,
            each=show,
            interval_s=self.platform.interval_s,
        )

    def _delete_failed(self) -> None:
        self.print_line(f"endpoint    {self.name} has failed: deleting it")
        with translate_errors(f"endpoint {self.name}"):
            self.platform.sagemaker.delete_endpoint(EndpointName=self.name)
        self._await_deletion()

    def _await_deletion(self) -> None:
        wait(
            lambda: {"is_gone": describe(self.platform.sagemaker, "endpoint", self.name) is None},
            what=f"endpoint {self.name}",
            done=lambda record: record["is_gone"],
            interval_s=self.platform.interval_s,
        )


def _keep_all() -> str:
    return "nothing was deleted"

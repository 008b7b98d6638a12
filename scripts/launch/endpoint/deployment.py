"""Models and endpoints: made, waited for, and removed again where they fail."""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import CloudError, explained
from classifier.errors import ConfigError, UserError
from launch.local.storage import is_local, local_path
from launch.platform.clients import Platform
from launch.platform.logs import ENDPOINTS, LogTail
from launch.platform.polling import wait

KEYS = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}
_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_NUM_LAST_LINES = 10


def artifact_of(options: argparse.Namespace, platform: Callable[[], Platform]) -> str:
    """The address of MODEL: given so, as a path with --local, or as a training job's name.

    Raises:
        CloudError: there is no such job.
        ConfigError: the job has no model.
    """
    text = options.model
    if text.startswith(("s3://", "file://")):
        return text
    if options.local and Path(text).exists():
        return Path(text).resolve().as_uri()
    with explained(f"training job {text}"):
        job = platform().sagemaker.describe_training_job(TrainingJobName=text)
    address = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if not address or job["TrainingJobStatus"] not in ("Completed", "Stopped"):
        raise ConfigError(f"training job {text} is {job['TrainingJobStatus']} and has no model")
    return address


def version_of(url: str, region: str | None) -> str:
    """What tells an artifact from a later one at the same address.

    Raises:
        CloudError: there is no such object.
        ConfigError: there is no such file.
    """
    if is_local(url):
        path = local_path(url, "MODEL")
        if not path.exists():
            raise ConfigError(f"there is no {path}: train.py prints where an artifact lies")
        return f"{path.stat().st_mtime_ns}-{path.stat().st_size}"
    bucket, _, key = url.removeprefix("s3://").partition("/")
    with explained(url):
        try:
            return client("s3", region=region).head_object(Bucket=bucket, Key=key)["ETag"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "404":
                raise CloudError(f"{url}: there is no such object: train.py prints where an artifact lies") from None
            raise


def name_for(base: str, *parts: object) -> str:
    """A name that says what it stands for: the same parts always give the same name."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{base[:50]}-{digest[:12]}"


@dataclass
class Deployment:
    """What one run has made so far, so that it can be unmade."""

    platform: Platform
    say: Callable[[str], object]
    made: list[tuple[str, str]] = field(default_factory=list)

    def ensure_model(self, request: Mapping[str, Any]) -> None:
        self._ensure("model", "ModelName", request)

    def ensure_config(self, request: Mapping[str, Any]) -> None:
        self._ensure("endpoint_config", "EndpointConfigName", request)

    def bring_up(self, create: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        """The endpoint is in service with this config, whatever it was before.

        Raises:
            UserError: it failed; the reason and the last log lines are in the message, and what was made is unmade.
            CloudError: AWS refuses, or can't be reached any more.
        """
        name, config = create["EndpointName"], create["EndpointConfigName"]
        before = self._settled(name)
        if before and before["EndpointStatus"] == "InService" and before["EndpointConfigName"] == config:
            self.say(f"endpoint    {name} is in service with this model and these settings already")
            return
        with explained(f"endpoint {name}"):
            if before and before["EndpointStatus"] == "InService":
                self.platform.sagemaker.update_endpoint(**update)
            else:
                if before:
                    self._delete_failed(name, before)
                self.platform.sagemaker.create_endpoint(**create)
                self.made.append(("endpoint", name))
        self._await(name, config)

    def unmake(self) -> None:
        """Delete what was made, the latest first."""
        while self.made:
            kind, name = self.made.pop()
            # What is gone already need not be deleted.
            with suppress(ClientError):
                delete(self.platform.sagemaker, kind, name)

    def _ensure(self, kind: str, key: str, request: Mapping[str, Any]) -> None:
        name = request[key]
        with explained(f"{kind.replace('_', ' ')} {name}"):
            if exists(self.platform.sagemaker, kind, key, name):
                return
            getattr(self.platform.sagemaker, f"create_{kind}")(**request)
            self.made.append((kind, name))

    def _settled(self, name: str) -> Mapping[str, Any] | None:
        """The endpoint as it is once nothing is being done to it; None where there is none."""
        with explained(f"endpoint {name}"):
            if not exists(self.platform.sagemaker, "endpoint", "EndpointName", name):
                return None
        return self._wait(name, told=("InService",))

    def _wait(self, name: str, told: Sequence[str] = ()) -> Mapping[str, Any]:
        shown = list(told)

        def show(record: Mapping[str, Any]) -> None:
            if [record["EndpointStatus"]] != shown[-1:]:
                shown.append(record["EndpointStatus"])
                self.say(f"endpoint    {name}: {record['EndpointStatus']}")

        return wait(
            lambda: self.platform.sagemaker.describe_endpoint(EndpointName=name),
            what=f"endpoint {name}",
            done=lambda one: one["EndpointStatus"] not in _BUSY,
            each=show,
            interval_s=self.platform.interval_s,
        )

    def _await(self, name: str, config: str) -> None:
        record = self._wait(name)
        if record["EndpointStatus"] == "InService" and record["EndpointConfigName"] == config:
            return
        reason = record.get("FailureReason", "no reason is given")
        lines = LogTail(self.platform.logs, f"{ENDPOINTS}/{name}").last_lines(_NUM_LAST_LINES)
        went_on = record["EndpointStatus"] == "InService"
        self.unmake()
        told = "".join(f"\n  {line}" for line in lines)
        state = "what served before goes on serving" if went_on else "nothing of it was left"
        raise UserError(
            f"endpoint {name} failed: {reason}; {state}{f'{chr(10)}last lines of its log:{told}' if lines else ''}"
        )

    def _delete_failed(self, name: str, before: Mapping[str, Any]) -> None:
        self.say(f"endpoint    {name} was {before['EndpointStatus']}: it is made anew")
        self.platform.sagemaker.delete_endpoint(EndpointName=name)
        wait(
            lambda: {"gone": not exists(self.platform.sagemaker, "endpoint", "EndpointName", name)},
            what=f"endpoint {name}",
            done=lambda one: one["gone"],
            interval_s=self.platform.interval_s,
        )


def exists(sagemaker: Any, kind: str, key: str, name: str) -> bool:
    try:
        getattr(sagemaker, f"describe_{kind}")(**{key: name})
    except ClientError as error:
        # The API has no code of its own for what does not exist.
        detail = error.response.get("Error", {})
        if detail.get("Code") in ("ValidationException", "ResourceNotFound", "ResourceNotFoundException"):
            message = detail.get("Message", "").lower()
            if "could not find" in message or "not found" in message or "does not exist" in message:
                return False
        raise
    return True


def delete(sagemaker: Any, kind: str, name: str) -> None:
    getattr(sagemaker, f"delete_{kind}")(**{KEYS[kind]: name})

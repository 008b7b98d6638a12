"""Invocation of an asynchronous endpoint: photos are uploaded and queued, and their answers awaited."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aws.errors import CloudError, translate_errors
from classifier.errors import ConfigError
from commands import interrupts
from launch.endpoint.predictions import RejectedError, error_message, read_document
from launch.local.storage import is_local
from launch.platform.clients import Platform
from launch.platform.objects import Objects
from launch.terminal import print_status


@dataclass(frozen=True)
class QueuedPhoto:
    """A photo that the endpoint has accepted.

    Attributes:
        source: the address that the endpoint reads.
        output: where its answer appears.
        failure: where the error appears instead, if the endpoint has a place for errors.
    """

    source: str
    output: str
    failure: str | None


@dataclass
class AsyncInvocations:
    """The photos that one command has sent to an asynchronous endpoint.

    A context manager: at its end the uploaded photos are deleted, except those that are still queued.

    Attributes:
        request: as returned by :func:`launch.endpoint.predictions.invocation_request`.
        uploads: prefix in S3 below which photos are copied; one on this machine reads them where they are.
        wait_s: seconds to wait for the answers, from the first question on.
    """

    platform: Platform
    objects: Objects
    request: Mapping[str, Any]
    uploads: str
    wait_s: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _queued: dict[Path, QueuedPhoto] = field(default_factory=dict)
    _uploaded: list[str] = field(default_factory=list)
    _deadline: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queued = list(self._queued.values())
        waiting = {one.source for one in queued}
        for uri in self._uploaded:
            if uri not in waiting:
                self._delete(uri)
        if queued:
            more = f" and {len(queued) - 1} more" if len(queued) > 1 else ""
            print_status(f"predict: still queued: {queued[0].source}{more}; its answer will be {queued[0].output}")

    def send(self, photos: Sequence[Path]) -> None:
        """Upload photos and queue them.

        Raises:
            CloudError: AWS refused a request or can't be reached.
        """
        for path in photos:
            interrupts.check()
            source = self._upload(path)
            with translate_errors(f"endpoint {self.request['EndpointName']}"):
                answer = self.platform.runtime.invoke_endpoint_async(**self.request, InputLocation=source)
            self._queued[path] = QueuedPhoto(source, answer["OutputLocation"], answer.get("FailureLocation"))

    def answer(self, path: Path) -> dict[str, Any]:
        """Wait for the answer about a photo that was sent.

        Raises:
            RejectedError: the endpoint has failed on the photo, or there was no answer in time.
            CloudError: AWS refused a request or can't be reached.
        """
        if self._deadline is None:
            self._deadline = self.clock() + self.wait_s
        photo = self._queued[path]
        while True:
            content, failure = self.objects.read(photo.output), None
            if content is None and photo.failure:
                failure = self.objects.read(photo.failure)
            if content is not None or failure is not None:
                break
            if self.clock() >= self._deadline:
                raise RejectedError(f"no answer after {self.wait_s:g} s")
            interrupts.check()
            self.sleep(self.platform.interval_s)
        del self._queued[path]
        if content is None:
            raise RejectedError(f"failed: {error_message((failure or b'').decode(errors='replace'))} ({photo.failure})")
        return read_document(content)

    def _upload(self, path: Path) -> str:
        uri = input_location(path, self.uploads)
        if is_local(uri):
            return uri
        # Noted first: an upload that is interrupted may have been stored.
        self._uploaded.append(uri)
        self.objects.upload(path, uri)
        return uri

    def _delete(self, uri: str) -> None:
        try:
            self.objects.delete(uri)
        except CloudError as error:
            print_status(f"predict: {error}; the copy of the photo is left")


def async_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the InvokeEndpointAsync request, without its input, of an InvokeEndpoint request.

    Raises:
        ConfigError: it names one of several models, which asynchronous endpoints do not have.
    """
    if "TargetModel" in request:
        raise ConfigError(f"--target-model: endpoint {request['EndpointName']} is asynchronous and serves one model")
    return dict(request)


def input_location(photo: Path, uploads: str) -> str:
    """Return the address from which the endpoint reads a photo: a new one in S3, or the photo's on this machine."""
    if is_local(uploads):
        return photo.resolve().as_uri()
    return f"{uploads.rstrip('/')}/{uuid.uuid4().hex}{photo.suffix.lower()}"


def upload_prefix(config: Mapping[str, Any], given: str | None) -> str:
    """Return the prefix below which photos are uploaded: the given one, or ``inputs/`` below the answers.

    Args:
        config: the endpoint's ``AsyncInferenceConfig``.
    """
    return given or f"{config['OutputConfig']['S3OutputPath'].rstrip('/')}/inputs"

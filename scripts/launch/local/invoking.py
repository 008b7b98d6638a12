"""Calls of an endpoint of this machine, as ``sagemaker-runtime`` takes and answers them."""

import io
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.local.addresses import folder_of
from launch.local.endpoints import Endpoints
from launch.local.refusals import invalid, refuse
from launch.local.servers import Server, unpack

_HTTP_OK = 200
_HTTP_CONFLICT = 409


def invoke(endpoints: Endpoints, request: Mapping[str, Any]) -> dict[str, Any]:
    """
    Raises:
        ClientError: ``ModelError``, with the container's own status and message, where it refuses.
    """
    name = request["EndpointName"]
    server = endpoints.server(name)
    path = "/invocations"
    if "TargetModel" in request:
        path = f"/models/{_load(endpoints, name, server, request['TargetModel'])}/invoke"
    body = request["Body"] if isinstance(request["Body"], bytes) else request["Body"].read()
    status, headers, answer = _call(server, path, body, _headers(request))
    if status != _HTTP_OK:
        raise _model_error(name, status, answer)
    return {
        "Body": io.BytesIO(answer),
        "ContentType": headers.get("Content-Type", ""),
        "InvokedProductionVariant": "AllTraffic",
        "ResponseMetadata": {"HTTPStatusCode": status},
    }


def invoke_async(endpoints: Endpoints, request: Mapping[str, Any]) -> dict[str, Any]:
    """The photo at ``InputLocation`` → a file at ``OutputLocation``, or the refusal at ``FailureLocation``."""
    config = endpoints.config_of(request["EndpointName"]).get("AsyncInferenceConfig")
    if config is None:
        raise invalid(f"endpoint {request['EndpointName']!r} is not asynchronous")
    body = folder_of(request["InputLocation"], "InputLocation").read_bytes()
    identity = request.get("InferenceId", uuid.uuid4().hex)
    output = folder_of(config["OutputConfig"]["S3OutputPath"], "S3OutputPath") / f"{identity}.out"
    failure = output.with_suffix(".error")
    output.parent.mkdir(parents=True, exist_ok=True)
    server = endpoints.server(request["EndpointName"])
    status, _, answer = _call(server, "/invocations", body, _headers(request))
    (output if status == _HTTP_OK else failure).write_bytes(answer)
    return {"InferenceId": identity, "OutputLocation": output.as_uri(), "FailureLocation": failure.as_uri()}


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    names = {"ContentType": "Content-Type", "Accept": "Accept"}
    return {header: request[key] for key, header in names.items() if key in request}


def _call(server: Server, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    try:
        return server.request("POST", path, body, headers)
    except OSError as error:
        raise refuse(
            "ServiceUnavailable", f"the endpoint's server does not answer: {error}", "InvokeEndpoint"
        ) from None


def _load(endpoints: Endpoints, endpoint: str, server: Server, target: str) -> str:
    """Load a model of a multi-model endpoint, unless it is; its name in the server."""
    container = endpoints.container_of(endpoint)
    if container.get("Mode") != "MultiModel":
        raise invalid(f"endpoint {endpoint!r} holds one model: leave TargetModel out")
    root = folder_of(container["ModelDataUrl"], "ModelDataUrl")
    archive = (root / target).resolve()
    if not archive.is_relative_to(root.resolve()) or not archive.is_file():
        raise invalid(f"there is no model {target!r} under {root}")
    # The archive's time tells a new model under an old name.
    name = f"{Path(target).name.partition('.')[0]}-{archive.stat().st_mtime_ns:x}"
    if not (server.models / name / "model").is_dir():
        unpack(archive.as_uri(), server.models / name / "model")
    wanted = json.dumps({"model_name": name, "url": server.model_url(name)}).encode()
    status, _, answer = _call(server, "/models", wanted, {"Content-Type": "application/json"})
    if status not in (_HTTP_OK, _HTTP_CONFLICT):
        raise _model_error(endpoint, status, answer)
    return name


def _model_error(name: str, status: int, answer: bytes) -> Exception:
    message = answer.decode(errors="replace")
    error = refuse("ModelError", f"received {status} from endpoint {name!r}: {message}", "InvokeEndpoint")
    error.response.update({"OriginalStatusCode": status, "OriginalMessage": message})  # pyright: ignore[reportCallIssue, reportArgumentType]
    return error

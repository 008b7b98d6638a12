"""Local models, endpoint configs and endpoints, and their invocation. An endpoint's server runs until it is deleted."""

import http.client
import io
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.errors import api_error, check_request, in_use, invalid
from launch.local.processes import LOOPBACK
from launch.local.records import Record, Records, now
from launch.local.servers import LocalServer, remove_server, start_server, unpack_model
from launch.local.storage import local_path, write_file

_START_LIMIT = timedelta(minutes=8)
_MAX_REASON = 1024


class Endpoints:
    """Endpoints with the models and configs that they refer to.

    As on the platform, an update starts a new server, and the old one serves until the new one is ready. No process
    watches the servers: each describe call brings a record up to date.

    Args:
        folder: the local client's folder.
        bind: the address on which new servers listen, ``0.0.0.0`` for all interfaces.
    """

    def __init__(self, folder: Path, bind: str = LOOPBACK) -> None:
        self._bind = bind
        self.models = Records(folder, "model")
        self.configs = Records(folder, "endpoint-config")
        self.records = Records(folder, "endpoint")

    def create_model(self, request: dict[str, Any]) -> dict[str, Any]:
        """Record a model; its archive is not read until a server starts.

        Raises:
            ClientError: the name is taken, or the request has no PrimaryContainer with an Image.
        """
        check_request("CreateModel", request)
        if "PrimaryContainer" not in request or "Image" not in request["PrimaryContainer"]:
            raise invalid("the local client needs a model with a PrimaryContainer that has an Image")
        arn = self.models.arn(request["ModelName"])
        self.models.create(request["ModelName"], {**request, "ModelArn": arn, "CreationTime": now()})
        return {"ModelArn": arn}

    def create_config(self, request: dict[str, Any]) -> dict[str, Any]:
        """Record an endpoint config.

        Raises:
            ClientError: the name is taken, its model does not exist, or it has several production variants.
        """
        check_request("CreateEndpointConfig", request)
        if len(request["ProductionVariants"]) != 1:
            raise invalid("the local client supports exactly one production variant")
        self.models.read(request["ProductionVariants"][0]["ModelName"])
        name = request["EndpointConfigName"]
        arn = self.configs.arn(name)
        self.configs.create(name, {**request, "EndpointConfigArn": arn, "CreationTime": now()})
        return {"EndpointConfigArn": arn}

    def delete_config(self, name: str) -> None:
        """Delete an endpoint config.

        Raises:
            ClientError: an endpoint uses it, or it does not exist.
        """
        users = [one for one in self.records.names() if name in _configs(self.records.read(one))]
        if users:
            raise in_use(f"endpoint config {name!r} is used by endpoint {users[0]!r}")
        self.configs.delete(name)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start an endpoint. If its server cannot be started, the endpoint exists as Failed.

        Raises:
            ClientError: the name is taken, or its config does not exist.
        """
        check_request("CreateEndpoint", request)
        name, moment = request["EndpointName"], now()
        container = self._container(request["EndpointConfigName"])
        record = {
            **request,
            "EndpointArn": self.records.arn(name),
            "EndpointStatus": "Creating",
            "CreationTime": moment,
            "LastModifiedTime": moment,
        }
        self.records.create(name, record)
        self._launch(name, container, request["EndpointConfigName"])
        return {"EndpointArn": self.records.arn(name)}

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a server for another config; it replaces the present one once it is ready.

        Raises:
            ClientError: the endpoint is not InService, or the config does not exist.
        """
        check_request("UpdateEndpoint", request)
        name = request["EndpointName"]
        status = self.describe(name)["EndpointStatus"]
        if status != "InService":
            raise invalid(f"the endpoint {name!r} is {status}, so it can't be updated now")
        container = self._container(request["EndpointConfigName"])
        with self.records.edit(name) as record:
            record.update({"EndpointStatus": "Updating", "LastModifiedTime": now()})
            record.pop("FailureReason", None)
        self._launch(name, container, request["EndpointConfigName"])
        return {"EndpointArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        """Bring an endpoint's record up to date with its servers, and return it.

        Raises:
            ClientError: there is no such endpoint.
        """
        if self.records.read(name)["EndpointStatus"] in ("Creating", "Updating", "InService"):
            with self.records.edit(name) as record:
                self._refresh(name, record)
        return self.records.read(name)

    def delete(self, name: str) -> None:
        """Stop an endpoint's servers, and delete it.

        Raises:
            ClientError: there is no such endpoint.
        """
        self.records.read(name)
        # Also one that a killed command has started and not recorded.
        for folder in self.records.folder(name).glob("server-*"):
            remove_server(folder)
        self.records.delete(name)

    def server(self, name: str) -> LocalServer:
        """Return the server that answers for an endpoint.

        Raises:
            ClientError: the endpoint is not in service.
        """
        record = self.describe(name)
        if "Server" not in record or record["EndpointStatus"] not in ("InService", "Updating"):
            raise invalid(f"endpoint {name!r} is {record['EndpointStatus']}, so it can't be invoked now")
        return LocalServer.from_record(record["Server"])

    def config_of(self, name: str) -> Record:
        """Return the config of an endpoint."""
        return self.configs.read(self.records.read(name)["EndpointConfigName"])

    def container_of(self, name: str) -> dict[str, Any]:
        """Return the container definition of an endpoint's model."""
        return self._container(self.records.read(name)["EndpointConfigName"])

    def _container(self, config: str) -> dict[str, Any]:
        model = self.configs.read(config)["ProductionVariants"][0]["ModelName"]
        return self.models.read(model)["PrimaryContainer"]

    def _launch(self, name: str, container: Mapping[str, Any], config: str) -> None:
        identity = f"{now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
        folder = self.records.folder(name) / f"server-{identity}"
        log = self.records.folder(name) / "logs" / f"AllTraffic-{identity}.log"
        with self.records.edit(name) as record:
            record["PendingDeploymentSummary"] = {"EndpointConfigName": config}
            try:
                record["Next"] = start_server(container, folder, log, {}, host=self._bind).to_record()
            except (UserError, ClientError, OSError) as error:
                _fail(record, str(error))

    def _refresh(self, name: str, record: Record) -> None:
        if "Next" in record:
            new = LocalServer.from_record(record["Next"])
            if new.is_running and new.is_ready:
                _switch(record, new)
            elif not new.is_running:
                _fail(record, f"the server ended before it was ready: {self._last_log_line(name)}")
                remove_server(Path(new.folder))
            elif now() - record["LastModifiedTime"] > _START_LIMIT:
                _fail(record, "the server did not pass its health check within 8 minutes")
                remove_server(Path(new.folder))
        elif record["EndpointStatus"] == "InService" and not LocalServer.from_record(record["Server"]).is_running:
            record["EndpointStatus"] = "Failed"
            record["FailureReason"] = f"the server has ended: {self._last_log_line(name)}"

    def _last_log_line(self, name: str) -> str:
        """Return the last line in the log of the newest server."""
        logs = sorted((self.records.folder(name) / "logs").glob("*.log"))
        lines = logs[-1].read_text(encoding="utf-8", errors="replace").split("\n") if logs else []
        return next((line for line in reversed(lines) if line.strip()), "its log is empty")


def _configs(record: Record) -> tuple[str, str | None]:
    """Return the names of an endpoint's present config and, during an update, of its next one."""
    return record["EndpointConfigName"], record.get("PendingDeploymentSummary", {}).get("EndpointConfigName")


def _switch(record: Record, new: LocalServer) -> None:
    """Put a new server into service, and remove the one before."""
    old = record.get("Server")
    record.update({"Server": new.to_record(), "EndpointStatus": "InService", "LastModifiedTime": now()})
    record["EndpointConfigName"] = record.pop("PendingDeploymentSummary")["EndpointConfigName"]
    del record["Next"]
    if old:
        remove_server(Path(old["folder"]))


def _fail(record: Record, reason: str) -> None:
    """Record a server's failure: it fails a new endpoint, and rolls back an update."""
    record.pop("Next", None)
    record.pop("PendingDeploymentSummary", None)
    record["EndpointStatus"] = "InService" if "Server" in record else "Failed"
    record.update({"FailureReason": reason[:_MAX_REASON], "LastModifiedTime": now()})


def invoke(endpoints: Endpoints, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer an ``InvokeEndpoint`` request.

    Raises:
        ClientError: the endpoint is not in service, or ``ModelError`` with the container's status and message.
    """
    name = request["EndpointName"]
    server = endpoints.server(name)
    if "AsyncInferenceConfig" in endpoints.config_of(name):
        raise invalid(f"endpoint {name!r} is asynchronous: use InvokeEndpointAsync")
    path = "/invocations"
    if "TargetModel" in request:
        path = f"/models/{_load_model(endpoints, name, server, request['TargetModel'])}/invoke"
    body = request["Body"] if isinstance(request["Body"], bytes) else request["Body"].read()
    status, headers, answer = _post(server, path, body, _headers(request))
    if status != http.client.OK:
        raise _model_error(name, status, answer)
    return {
        "Body": io.BytesIO(answer),
        "ContentType": headers.get("Content-Type", ""),
        "InvokedProductionVariant": "AllTraffic",
        "ResponseMetadata": {"HTTPStatusCode": status},
    }


def invoke_async(endpoints: Endpoints, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer an ``InvokeEndpointAsync`` request: by now there is a file at OutputLocation, or at FailureLocation.

    The files are named as the platform's: ``ID.out`` below S3OutputPath, ``ID-error.out`` below S3FailurePath.

    Raises:
        ParamValidationError: the request is not the API's.
        ClientError: the endpoint is not in service, or is not asynchronous.
    """
    check_request("InvokeEndpointAsync", dict(request))
    name = request["EndpointName"]
    server = endpoints.server(name)
    config = endpoints.config_of(name).get("AsyncInferenceConfig")
    if config is None:
        raise invalid(f"endpoint {name!r} is not asynchronous: use InvokeEndpoint")
    if "InputLocation" not in request:
        raise invalid("the local client needs an InputLocation")
    source = local_path(request["InputLocation"], "InputLocation")
    # Not the caller's InferenceId, in which any character is allowed.
    file, places = uuid.uuid4().hex, config["OutputConfig"]
    output = local_path(places["S3OutputPath"], "S3OutputPath") / f"{file}.out"
    locations = {"OutputLocation": output.as_uri()}
    failure = None
    if "S3FailurePath" in places:
        failure = local_path(places["S3FailurePath"], "S3FailurePath") / f"{file}-error.out"
        locations["FailureLocation"] = failure.as_uri()
    status, answer = _answer_file(server, source, _headers(request))
    if status == http.client.OK:
        write_file(output, answer)
    elif failure:
        write_file(failure, answer)
    return {"InferenceId": request.get("InferenceId", file), **locations}


def _answer_file(server: LocalServer, source: Path, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the status and the content of the object for one input file; the platform encloses a server's error."""
    try:
        status, _, answer = _post(server, "/invocations", source.read_bytes(), headers)
    except (ClientError, OSError) as error:
        # The request was accepted, so that this is no answer to it.
        return 0, str(error).encode()
    if status == http.client.OK:
        return status, answer
    kind = "client" if status < http.client.INTERNAL_SERVER_ERROR else "server"
    return status, b'Received %s error (%d) from model with message "%s"' % (kind.encode(), status, answer)


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    names = {"ContentType": "Content-Type", "Accept": "Accept"}
    return {header: request[key] for key, header in names.items() if key in request}


def _post(
    server: LocalServer, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, Mapping[str, str], bytes]:
    try:
        return server.request("POST", path, body, headers)
    except OSError as error:
        message = f"the endpoint's server does not answer: {error}"
        raise api_error("ServiceUnavailable", message, "InvokeEndpoint") from None


def _load_model(endpoints: Endpoints, endpoint: str, server: LocalServer, target: str) -> str:
    """Load a model of a multi-model endpoint unless it is loaded; return its name in the server."""
    container = endpoints.container_of(endpoint)
    if container.get("Mode") != "MultiModel":
        raise invalid(f"endpoint {endpoint!r} serves one model: leave TargetModel out")
    root = local_path(container["ModelDataUrl"], "ModelDataUrl")
    archive = (root / target).resolve()
    if not archive.is_relative_to(root.resolve()) or not archive.is_file():
        raise invalid(f"there is no model {target!r} under {root}")
    # The archive's modification time tells apart models that replaced each other under one name.
    name = f"{Path(target).name.partition('.')[0]}-{archive.stat().st_mtime_ns:x}"
    if not (server.models / name / "model").is_dir():
        unpack_model(archive.as_uri(), server.models / name / "model")
    body = json.dumps({"model_name": name, "url": server.model_url(name)}).encode()
    status, _, answer = _post(server, "/models", body, {"Content-Type": "application/json"})
    # Conflict: it is loaded already.
    if status not in (http.client.OK, http.client.CONFLICT):
        raise _model_error(endpoint, status, answer)
    return name


def _model_error(name: str, status: int, answer: bytes) -> Exception:
    message = answer.decode(errors="replace")
    error = api_error("ModelError", f"received {status} from endpoint {name!r}: {message}", "InvokeEndpoint")
    error.response.update({"OriginalStatusCode": status, "OriginalMessage": message})  # pyright: ignore[reportCallIssue, reportArgumentType]
    return error

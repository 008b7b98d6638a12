"""The models, endpoint configs and endpoints of this machine. An endpoint's server runs until it is deleted."""

import io
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.errors import check, in_use, invalid, refuse
from launch.local.records import Record, Records, now
from launch.local.servers import Server, remove, start_server, unpack
from launch.local.storage import folder_of

_START_LIMIT = timedelta(minutes=8)


class Endpoints:
    """As on the platform, an update starts the new server first, and the old one serves until the new one can."""

    def __init__(self, folder: Path) -> None:
        self.models = Records(folder, "model")
        self.configs = Records(folder, "endpoint-config")
        self.records = Records(folder, "endpoint")

    def create_model(self, request: dict[str, Any]) -> dict[str, Any]:
        check("CreateModel", request)
        if "PrimaryContainer" not in request or "Image" not in request["PrimaryContainer"]:
            raise invalid("on this machine a model has a PrimaryContainer with an Image")
        arn = self.models.arn(request["ModelName"])
        self.models.create(request["ModelName"], {**request, "ModelArn": arn, "CreationTime": now()})
        return {"ModelArn": arn}

    def create_config(self, request: dict[str, Any]) -> dict[str, Any]:
        check("CreateEndpointConfig", request)
        if len(request["ProductionVariants"]) != 1:
            raise invalid("on this machine an endpoint has one production variant")
        self.models.read(request["ProductionVariants"][0]["ModelName"])
        name = request["EndpointConfigName"]
        arn = self.configs.arn(name)
        self.configs.create(name, {**request, "EndpointConfigArn": arn, "CreationTime": now()})
        return {"EndpointConfigArn": arn}

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        check("CreateEndpoint", request)
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
        check("UpdateEndpoint", request)
        name = request["EndpointName"]
        status = self.describe(name)["EndpointStatus"]
        if status != "InService":
            raise invalid(f"the endpoint {name!r} is {status}: it can't be updated now")
        container = self._container(request["EndpointConfigName"])
        with self.records.changing(name) as record:
            record.update({"EndpointStatus": "Updating", "LastModifiedTime": now()})
            record.pop("FailureReason", None)
        self._launch(name, container, request["EndpointConfigName"])
        return {"EndpointArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        if self.records.read(name)["EndpointStatus"] in ("Creating", "Updating", "InService"):
            with self.records.changing(name) as record:
                self._look(name, record)
        return self.records.read(name)

    def delete(self, name: str) -> None:
        record = self.records.read(name)
        for key in ("Server", "Next"):
            if key in record:
                remove(Server.of(record[key]))
        self.records.delete(name)

    def server(self, name: str) -> Server:
        """The server that answers for an endpoint.

        Raises:
            ClientError: it does not serve, yet or any more.
        """
        record = self.describe(name)
        if "Server" not in record or record["EndpointStatus"] not in ("InService", "Updating"):
            raise invalid(f"endpoint {name!r} is {record['EndpointStatus']}: it does not answer now")
        return Server.of(record["Server"])

    def config_of(self, name: str) -> Record:
        return self.configs.read(self.records.read(name)["EndpointConfigName"])

    def container_of(self, name: str) -> dict[str, Any]:
        return self._container(self.records.read(name)["EndpointConfigName"])

    def delete_model(self, name: str) -> None:
        self.models.delete(name)

    def delete_config(self, name: str) -> None:
        users = [one for one in self.records.names() if self.records.read(one)["EndpointConfigName"] == name]
        if users:
            raise in_use(f"endpoint config {name!r} is used by endpoint {users[0]!r}")
        self.configs.delete(name)

    def _container(self, config: str) -> dict[str, Any]:
        model = self.configs.read(config)["ProductionVariants"][0]["ModelName"]
        return self.models.read(model)["PrimaryContainer"]

    def _launch(self, name: str, container: Mapping[str, Any], config: str) -> None:
        identity = f"{now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
        folder = self.records.folder(name) / f"server-{identity}"
        log = self.records.folder(name) / "logs" / f"AllTraffic-{identity}.log"
        with self.records.changing(name) as record:
            record["NextConfigName"] = config
            try:
                record["Next"] = start_server(container, folder, log, {}).record()
            except (UserError, ClientError) as error:
                self._fail(record, str(error))

    def _look(self, name: str, record: Record) -> None:
        """Bring a record up to date with its servers."""
        if "Next" in record:
            following = Server.of(record["Next"])
            if following.is_running and following.is_ready:
                self._switch(record, following)
            elif not following.is_running:
                self._fail(record, f"the server ended before it was ready: {self._last_line(name)}")
                remove(following)
            elif now() - record["LastModifiedTime"] > _START_LIMIT:
                self._fail(record, "the server did not pass its health check in 8 minutes")
                remove(following)
        elif record["EndpointStatus"] == "InService" and not Server.of(record["Server"]).is_running:
            record["EndpointStatus"] = "Failed"
            record["FailureReason"] = f"the server has ended: {self._last_line(name)}"

    def _switch(self, record: Record, following: Server) -> None:
        before = record.get("Server")
        record.update({"Server": following.record(), "EndpointStatus": "InService", "LastModifiedTime": now()})
        record["EndpointConfigName"] = record.pop("NextConfigName")
        del record["Next"]
        if before:
            remove(Server.of(before))

    def _fail(self, record: Record, reason: str) -> None:
        """A first server that fails fails the endpoint; after an update the one before goes on serving."""
        record.pop("Next", None)
        record.pop("NextConfigName", None)
        record["EndpointStatus"] = "InService" if "Server" in record else "Failed"
        record.update({"FailureReason": reason[:1024], "LastModifiedTime": now()})

    def _last_line(self, name: str) -> str:
        """Of the server that was started last."""
        logs = sorted((self.records.folder(name) / "logs").glob("*.log"))
        lines = logs[-1].read_text(encoding="utf-8", errors="replace").split("\n") if logs else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")


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

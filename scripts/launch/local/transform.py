"""The batch transform jobs of this machine: created, described, listed, stopped."""

import sys
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.errors import check, invalid
from launch.local.processes import is_alive, read_number, reap, start, write_number
from launch.local.records import Record, Records, now
from launch.local.servers import Server, remove, start_server
from launch.local.storage import folder_of
from launch.local.training import supervisor_environment

KIND = "transform-job"


class TransformJobs:
    def __init__(self, folder: Path, models: Records) -> None:
        self._root = folder
        self._models = models
        self.records = Records(folder, KIND)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        check("CreateTransformJob", request)
        source = request["TransformInput"]["DataSource"]["S3DataSource"]
        if source["S3DataType"] != "S3Prefix" or request["TransformInput"].get("SplitType", "None") != "None":
            raise invalid("on this machine a transform job takes an S3Prefix, and each object whole (SplitType None)")
        if not folder_of(source["S3Uri"], "S3Uri").is_dir():
            raise invalid(f"there is no folder {folder_of(source['S3Uri'], 'S3Uri')}")
        folder_of(request["TransformOutput"]["S3OutputPath"], "S3OutputPath")
        self._models.read(request["ModelName"])
        name, moment = request["TransformJobName"], now()
        record = {
            **request,
            "TransformJobArn": self.records.arn(name),
            "TransformJobStatus": "InProgress",
            "CreationTime": moment,
        }
        self.records.create(name, record)
        folder = self.records.folder(name)
        pid = start(
            [sys.executable, "-m", "launch.local.transform", str(self._root), name],
            lock=folder / "supervisor.lock",
            log=folder / "supervisor.log",
            environment=supervisor_environment(),
        )
        write_number(folder / "supervisor.pid", pid)
        return {"TransformJobArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        record = self.records.read(name)
        folder = self.records.folder(name)
        number = read_number(folder / "supervisor.pid")
        if record["TransformJobStatus"] in ("InProgress", "Stopping") and number:
            if is_alive(folder / "supervisor.lock"):
                return record
            reap(number)
            with self.records.changing(name) as changed:
                if changed["TransformJobStatus"] in ("InProgress", "Stopping"):
                    changed["TransformJobStatus"], changed["TransformEndTime"] = "Failed", now()
                    changed["FailureReason"] = "InternalServerError: the process that ran this job was killed"
        return self.records.read(name)

    def stop(self, name: str) -> None:
        with self.records.changing(name) as record:
            if record["TransformJobStatus"] == "InProgress":
                record["TransformJobStatus"] = "Stopping"

    def summaries(self) -> list[Record]:
        fields = ("TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime", "TransformJobStatus")
        described = [self.describe(name) for name in self.records.names()]
        return [{key: record[key] for key in fields if key in record} for record in described]


_START_LIMIT_S = 480.0
_POLL_S = 0.1
_HTTP_OK = 200
_MIB = 1024 * 1024


@dataclass
class TransformSupervisor:
    """One job, and how it goes on."""

    root: Path
    name: str

    def __post_init__(self) -> None:
        self.records = Records(self.root, KIND)

    def run(self) -> None:
        request = self.records.read(self.name)
        folder = self.records.folder(self.name)
        container = Records(self.root, "model").read(request["ModelName"])["PrimaryContainer"]
        server: Server | None = None
        try:
            environment = {"SAGEMAKER_BATCH": "true", **request.get("Environment", {})}
            server = start_server(container, folder / "server", folder / "logs" / "algo-1.log", environment)
            self._wait(server)
            self._note(TransformStartTime=now())
            self._finish(self._transform(request, server))
        except (UserError, ClientError) as error:
            self._end("Failed", f"ClientError: {error}")
        except Exception as error:
            traceback.print_exc()
            self._end("Failed", f"InternalServerError: {error!r}")
        finally:
            if server:
                remove(server)

    def _wait(self, server: Server) -> None:
        end = time.monotonic() + _START_LIMIT_S
        while not server.is_ready:
            if not server.is_running or time.monotonic() > end:
                raise UserError("the server ended before it was ready: see the job's log")
            time.sleep(_POLL_S)

    def _transform(self, request: Record, server: Server) -> list[str]:
        """The objects that were refused."""
        source = folder_of(request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"], "S3Uri")
        target = folder_of(request["TransformOutput"]["S3OutputPath"], "S3OutputPath")
        files = sorted(path for path in source.rglob("*") if path.is_file())
        if not files:
            raise UserError(f"{source} holds no files")

        def one(path: Path) -> str | None:
            if self._is_stopping():
                return None
            return _answer(path, target / f"{path.relative_to(source)}.out", request, server)

        with ThreadPoolExecutor(request.get("MaxConcurrentTransforms") or 1) as pool:
            return [refusal for refusal in pool.map(one, files) if refusal]

    def _is_stopping(self) -> bool:
        return self.records.read(self.name)["TransformJobStatus"] == "Stopping"

    def _finish(self, refusals: list[str]) -> None:
        if self._is_stopping():
            self._end("Stopped")
        elif refusals:
            self._end("Failed", f"ClientError: {len(refusals)} of the input's objects were refused: {refusals[0]}")
        else:
            self._end("Completed")

    def _end(self, status: str, reason: str | None = None) -> None:
        self._note(
            TransformJobStatus=status, TransformEndTime=now(), **({"FailureReason": reason[:1024]} if reason else {})
        )

    def _note(self, **fields: Any) -> None:
        with self.records.changing(self.name) as record:
            record.update(fields)


def _answer(path: Path, output: Path, request: Mapping[str, Any], server: Server) -> str | None:
    """One object; None, or why it was refused, which costs its own output alone."""
    if path.stat().st_size > request.get("MaxPayloadInMB", 6) * _MIB:
        return f"{path.name}: larger than MaxPayloadInMB"
    headers = {"Content-Type": request["TransformInput"].get("ContentType", "application/octet-stream")}
    if accept := request["TransformOutput"].get("Accept"):
        headers["Accept"] = accept
    status, _, body = server.request("POST", "/invocations", path.read_bytes(), headers)
    if status != _HTTP_OK:
        return f"{path.name}: {status}: {body.decode(errors='replace')}"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(body)
    return None


def main() -> None:
    root, name = sys.argv[1:]
    TransformSupervisor(Path(root), name).run()


if __name__ == "__main__":
    main()

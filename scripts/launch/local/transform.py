"""Local batch transform jobs, each run by a supervisor process.

``python -m launch.local.transform FOLDER NAME`` is the supervisor.
"""

import http.client
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
from launch.local.errors import check_request, failure_reason, invalid, is_disk_full
from launch.local.processes import has_lost_supervisor, start_supervisor
from launch.local.records import RUNNING, Record, Records, now, select_fields
from launch.local.servers import LocalServer, remove_server, start_server
from launch.local.storage import local_path, write_file

KIND = "transform-job"
_SUMMARY = ("TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime", "TransformJobStatus")
_START_LIMIT_S = 480.0
_POLL_S = 0.1
_MIB = 1024 * 1024
_SERVER = "server"  # the server's folder, in the job's
_MAX_REASON = 1024


class TransformJobs:
    """Create, describe, list and stop transform jobs.

    Args:
        folder: the local client's folder.
        models: the records of its models.
    """

    def __init__(self, folder: Path, models: Records) -> None:
        self._root = folder
        self._models = models
        self.records = Records(folder, KIND)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a job.

        Raises:
            ParamValidationError: the request is not the API's.
            ClientError: the name is taken, or the local client cannot run this job.
        """
        check_request("CreateTransformJob", request)
        source = request["TransformInput"]["DataSource"]["S3DataSource"]
        if source["S3DataType"] != "S3Prefix" or request["TransformInput"].get("SplitType", "None") != "None":
            raise invalid("the local client transforms whole objects: use S3DataType S3Prefix and SplitType None")
        folder = local_path(source["S3Uri"], "S3Uri")
        if not folder.is_dir():
            raise invalid(f"there is no folder {folder}")
        local_path(request["TransformOutput"]["S3OutputPath"], "S3OutputPath")
        self._models.read(request["ModelName"])
        name = request["TransformJobName"]
        record = {
            **request,
            "TransformJobArn": self.records.arn(name),
            "TransformJobStatus": "InProgress",
            "CreationTime": now(),
        }
        self.records.create(name, record)
        try:
            start_supervisor("launch.local.transform", str(self._root), name, folder=self.records.folder(name))
        except OSError:
            self.records.delete(name)
            raise
        return {"TransformJobArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        """Return a job's record. A job whose supervisor was killed becomes Failed.

        Raises:
            ClientError: there is no such job.
        """
        record = self.records.read(name)
        if record["TransformJobStatus"] in RUNNING and has_lost_supervisor(self.records.folder(name)):
            # It would wait for requests for ever.
            remove_server(self.records.folder(name) / _SERVER)
            with self.records.edit(name) as changed:
                # The supervisor may have finished the job between the read above and its own end.
                if changed["TransformJobStatus"] in RUNNING:
                    changed["TransformJobStatus"], changed["TransformEndTime"] = "Failed", now()
                    changed["FailureReason"] = "InternalServerError: the process that ran this job was killed"
            record = self.records.read(name)
        return record

    def stop(self, name: str) -> None:
        """Ask the supervisor to stop a job; does nothing to one that has ended.

        Raises:
            ClientError: there is no such job.
        """
        with self.records.edit(name) as record:
            if record["TransformJobStatus"] == "InProgress":
                record["TransformJobStatus"] = "Stopping"

    def summaries(self) -> list[Record]:
        """Return the list entries of all jobs, newest first."""
        return [select_fields(self.describe(name), _SUMMARY) for name in self.records.names()]


@dataclass
class TransformSupervisor:
    """Runs one job: a server of its own, one request per input file."""

    root: Path
    name: str

    def __post_init__(self) -> None:
        self.records = Records(self.root, KIND)

    def run(self) -> None:
        """Run the job. Any failure ends up in its record."""
        folder = self.records.folder(self.name)
        try:
            status, reason = self._run(self.records.read(self.name), folder)
        except (UserError, ClientError) as error:
            status, reason = "Failed", f"ClientError: {error}"
        except Exception as error:
            status, reason = "Failed", failure_reason(error, folder)
            if not is_disk_full(error):
                traceback.print_exc()
        # Before the job has ended: then its folder may be deleted.
        remove_server(folder / _SERVER)
        failure = {"FailureReason": reason[:_MAX_REASON]} if reason else {}
        self.records.update(self.name, TransformJobStatus=status, TransformEndTime=now(), **failure)

    def _run(self, request: Record, folder: Path) -> tuple[str, str]:
        """Return the final status and, unless it is Completed, the reason for it."""
        container = Records(self.root, "model").read(request["ModelName"])["PrimaryContainer"]
        environment = {"SAGEMAKER_BATCH": "true", **request.get("Environment", {})}
        server = start_server(container, folder / _SERVER, folder / "logs" / "algo-1.log", environment)
        self._wait_until_ready(server)
        self.records.update(self.name, TransformStartTime=now())
        outcomes = self._transform(request, server)
        errors = [one for one in outcomes if one]
        if self._is_stopping():
            return "Stopped", f"stopped on request after {outcomes.count('')} of {len(outcomes)} input objects"
        if errors:
            return "Failed", f"ClientError: {len(errors)} input objects failed; the first: {errors[0]}"
        return "Completed", ""

    def _wait_until_ready(self, server: LocalServer) -> None:
        """Wait until the server is ready or the job is to stop."""
        deadline = time.monotonic() + _START_LIMIT_S
        while not server.is_ready and not self._is_stopping():
            if not server.is_running:
                raise UserError("the server ended before it was ready: see the job's log")
            if time.monotonic() > deadline:
                raise UserError(f"the server was not ready after {_START_LIMIT_S:.0f} s: see the job's log")
            time.sleep(_POLL_S)

    def _transform(self, request: Record, server: LocalServer) -> list[str | None]:
        """Send the input files until the job is to stop.

        Returns:
            For each file the error, empty if the file was answered; None if it was not sent.
        """
        source = local_path(request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"], "S3Uri")
        target = local_path(request["TransformOutput"]["S3OutputPath"], "S3OutputPath")
        files = sorted(path for path in source.rglob("*") if path.is_file())
        if not files:
            raise UserError(f"{source} holds no files")

        def transform_unless_stopping(path: Path) -> str | None:
            if self._is_stopping():
                return None
            return _transform_file(path, target / f"{path.relative_to(source)}.out", request, server)

        with ThreadPoolExecutor(request.get("MaxConcurrentTransforms") or 1) as pool:
            return list(pool.map(transform_unless_stopping, files))

    def _is_stopping(self) -> bool:
        return self.records.read(self.name)["TransformJobStatus"] == "Stopping"


def _transform_file(path: Path, output: Path, request: Mapping[str, Any], server: LocalServer) -> str:
    """Write the response for one file, and return nothing; if it fails, return the error and write nothing."""
    if path.stat().st_size > request.get("MaxPayloadInMB", 6) * _MIB:
        return f"{path.name}: larger than MaxPayloadInMB"
    headers = {"Content-Type": request["TransformInput"].get("ContentType", "application/octet-stream")}
    if accept := request["TransformOutput"].get("Accept"):
        headers["Accept"] = accept
    status, _, body = server.request("POST", "/invocations", path.read_bytes(), headers)
    if status != http.client.OK:
        return f"{path.name}: {status}: {body.decode(errors='replace')}"
    write_file(output, body)
    return ""


def main() -> None:
    root, name = sys.argv[1:]
    TransformSupervisor(Path(root), name).run()


if __name__ == "__main__":
    main()

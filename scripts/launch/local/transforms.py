"""The batch transform jobs of this machine: created, described, listed, stopped."""

import sys
from pathlib import Path
from typing import Any

from launch.local.addresses import folder_of
from launch.local.processes import is_alive, read_number, reap, start, write_number
from launch.local.records import Record, Records, now
from launch.local.refusals import check, invalid
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
            [sys.executable, "-m", "launch.local.run_transform", str(self._root), name],
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

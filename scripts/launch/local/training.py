"""The training jobs of this machine: created, described, listed, stopped. Each is run by a supervisor of its own."""

import os
import sys
from pathlib import Path
from typing import Any

from launch.local.addresses import folder_of
from launch.local.channels import check_channels
from launch.local.hosts import remove_leftovers
from launch.local.processes import is_alive, read_number, reap, start, write_number
from launch.local.records import Record, Records, now
from launch.local.refusals import check, invalid

SCRIPTS = Path(__file__).resolve().parents[2]
KIND = "training-job"


class TrainingJobs:
    """
    Args:
        grace_s: what a job has between SIGTERM and SIGKILL.
    """

    def __init__(self, folder: Path, grace_s: float) -> None:
        self._root = folder
        self._grace_s = grace_s
        self.records = Records(folder, KIND)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        check("CreateTrainingJob", request)
        check_channels(request)
        if "CheckpointConfig" in request:
            folder_of(request["CheckpointConfig"]["S3Uri"], "CheckpointConfig.S3Uri")
        if "InstanceType" not in request.get("ResourceConfig", {}):
            raise invalid("ResourceConfig: on this machine all hosts are alike: InstanceType and InstanceCount")
        name = request["TrainingJobName"]
        self.records.create(name, _new_record(request, self.records.arn(name)))
        folder = self.records.folder(name)
        pid = start(
            [sys.executable, "-m", "launch.local.run_training", str(self._root), name, str(self._grace_s)],
            lock=folder / "supervisor.lock",
            log=folder / "supervisor.log",
            environment=supervisor_environment(),
        )
        write_number(folder / "supervisor.pid", pid)
        return {"TrainingJobArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        record = self.records.read(name)
        if record["TrainingJobStatus"] in ("InProgress", "Stopping") and self._supervisor_is_gone(name):
            record = self._bury(name)
        return record

    def stop(self, name: str) -> None:
        with self.records.changing(name) as record:
            if record["TrainingJobStatus"] != "InProgress":
                raise invalid(f"the training job {name!r} is {record['TrainingJobStatus']}, so it can't be stopped")
            record["TrainingJobStatus"] = "Stopping"
            record["LastModifiedTime"] = now()

    def summaries(self) -> list[Record]:
        fields = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime")
        fields = (*fields, "TrainingJobStatus", "SecondaryStatus")
        described = [self.describe(name) for name in self.records.names()]
        return [{key: record[key] for key in fields if key in record} for record in described]

    def delete(self, name: str) -> None:
        """
        Raises:
            ClientError: it still runs.
        """
        if self.describe(name)["TrainingJobStatus"] in ("InProgress", "Stopping"):
            raise invalid(f"the training job {name!r} still runs: stop it first")
        self.records.delete(name)

    def _supervisor_is_gone(self, name: str) -> bool:
        folder = self.records.folder(name)
        # Without its number it is being started just now.
        number = read_number(folder / "supervisor.pid")
        if number is None or is_alive(folder / "supervisor.lock"):
            return False
        reap(number)
        return True

    def _bury(self, name: str) -> Record:
        """A supervisor that was killed can't say so itself."""
        with self.records.changing(name) as record:
            if record["TrainingJobStatus"] in ("InProgress", "Stopping"):
                remove_leftovers(record, self.records.folder(name))
                record["TrainingJobStatus"] = record["SecondaryStatus"] = "Failed"
                record["FailureReason"] = "InternalServerError: the process that ran this job was killed"
                record["TrainingEndTime"] = record["LastModifiedTime"] = now()
        return self.records.read(name)


def supervisor_environment() -> dict[str, str]:
    paths = [str(SCRIPTS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _new_record(request: dict[str, Any], arn: str) -> Record:
    created = now()
    return {
        **request,
        "TrainingJobArn": arn,
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": created}],
        "CreationTime": created,
        "LastModifiedTime": created,
    }

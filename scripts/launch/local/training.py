"""The training jobs of this machine: created, described, listed, stopped. Each is run by a supervisor of its own."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.errors import check, invalid
from launch.local.hosts import Host, Layout, lay_out_job, remove_leftovers, start_hosts
from launch.local.processes import is_alive, read_number, reap, start, write_number
from launch.local.records import Record, Records, now
from launch.local.storage import (
    check_channels,
    deliver,
    deliver_folder,
    failure_reason,
    fetch_channels,
    final_metrics,
    folder_of,
    pack,
)

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
            [sys.executable, "-m", "launch.local.training", str(self._root), name, str(self._grace_s)],
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


_POLL_S = 0.1
# Who asks for it, its folder below /opt/ml/output, and its name below the output path.
_SAVED = (("DebugHookConfig", "tensors", "debug-output"), ("ProfilerConfig", "profiler", "profiler-output"))


@dataclass
class Supervisor:
    """One job, and how it goes on."""

    records: Records
    name: str
    grace_s: float

    def run(self) -> None:
        request = self.records.read(self.name)
        folder = self.records.folder(self.name)
        try:
            self._enter("Downloading")
            channels = fetch_channels(request, folder / "input")
            layout = lay_out_job(request, channels, folder)
            try:
                hosts, reason = self._train(request, layout)
            finally:
                remove_leftovers(request, folder)
            self._finish(request, layout, hosts, reason)
        except (UserError, ClientError) as error:
            self._end("Failed", "Failed", FailureReason=f"ClientError: {error}"[:1024])
        except Exception as error:
            traceback.print_exc()
            self._end("Failed", "Failed", FailureReason=f"InternalServerError: {error!r}"[:1024])

    def _train(self, request: Record, layout: Layout) -> tuple[list[Host], str | None]:
        """The hosts, ended; and why they were asked to, if they were."""
        self._enter("Training", TrainingStartTime=now())
        environment = {
            **request.get("Environment", {}),
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.records.arn(self.name),
        }
        hosts = start_hosts(request, layout, self.records.folder(self.name), environment)
        limit = time.monotonic() + request["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
        reason: str | None = None
        while any(host.poll() is None for host in hosts):
            reason = self._reason_to_stop(limit)
            # Where one host fails, the others would wait for it for ever.
            if reason or any(host.code for host in hosts):
                _stop(hosts, self.grace_s)
                break
            time.sleep(_POLL_S)
        return hosts, reason

    def _reason_to_stop(self, limit: float) -> str | None:
        if self.records.read(self.name)["TrainingJobStatus"] == "Stopping":
            return "Stopped"
        return "MaxRuntimeExceeded" if time.monotonic() > limit else None

    def _finish(self, request: Record, layout: Layout, hosts: list[Host], reason: str | None) -> None:
        bases = list(layout.bases.values())
        codes = {host.name: host.code or 0 for host in hosts}
        failed = reason is None and any(codes.values())
        self._enter("Uploading", TrainingEndTime=now())
        self._deliver(request, bases, with_model=not failed)
        folder = self.records.folder(self.name)
        definitions = request["AlgorithmSpecification"].get("MetricDefinitions", [])
        metrics = final_metrics(sorted((folder / "logs").iterdir()), definitions)
        if failed:
            reason_given = failure_reason(bases, codes)
            self._end("Failed", "Failed", FailureReason=reason_given, FinalMetricDataList=metrics)
        else:
            self._end("Stopped" if reason else "Completed", reason or "Completed", FinalMetricDataList=metrics)

    def _deliver(self, request: Record, bases: list[Path], *, with_model: bool) -> None:
        folder, output = self.records.folder(self.name), request["OutputDataConfig"]["S3OutputPath"]
        if pack([base / "output" / "data" for base in bases], folder / "output.tar.gz"):
            deliver(folder / "output.tar.gz", output, self.name)
        if with_model and pack([base / "model" for base in bases], folder / "model.tar.gz"):
            uri = deliver(folder / "model.tar.gz", output, self.name)
            self._note(ModelArtifacts={"S3ModelArtifacts": uri})
        for key, name, saved in (
            ("DebugHookConfig", "debug-output", "tensors"),
            ("ProfilerConfig", "profiler-output", "profiler"),
        ):
            where = request.get(key, {}).get("S3OutputPath")
            deliver_folder([base / "output" / saved for base in bases], where, self.name, name)

    def _enter(self, secondary: str, **fields: Any) -> None:
        with self.records.changing(self.name) as record:
            moment = now()
            record["SecondaryStatusTransitions"][-1]["EndTime"] = moment
            record["SecondaryStatusTransitions"].append({"Status": secondary, "StartTime": moment})
            record.update({"SecondaryStatus": secondary, "LastModifiedTime": moment, **fields})

    def _end(self, status: str, secondary: str, **fields: Any) -> None:
        record = self.records.read(self.name)
        ended = record.get("TrainingEndTime") or now()
        seconds = round((ended - record.get("TrainingStartTime", ended)).total_seconds())
        times = {"TrainingEndTime": ended, "TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": 0}
        self._enter(secondary, TrainingJobStatus=status, **times, **fields)

    def _note(self, **fields: Any) -> None:
        with self.records.changing(self.name) as record:
            record.update(fields)


def _stop(hosts: list[Host], grace_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """SIGTERM to each, and SIGKILL to those that run on after ``grace_s``."""
    for host in hosts:
        host.terminate()
    end = time.monotonic() + grace_s
    while any(host.poll() is None for host in hosts) and time.monotonic() < end:
        sleep(_POLL_S)
    for host in hosts:
        if host.poll() is None:
            host.kill()
    while any(host.poll() is None for host in hosts):
        sleep(_POLL_S)


def main() -> None:
    root, name, grace_s = sys.argv[1:]
    Supervisor(Records(Path(root), KIND), name, float(grace_s)).run()


if __name__ == "__main__":
    main()

"""Local training jobs, each run by a supervisor process.

``python -m launch.local.training FOLDER NAME GRACE_S INTERRUPT_AFTER_S`` is the supervisor.
"""

import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.errors import check_request, failure_reason, invalid, is_disk_full
from launch.local.hosts import JobLayout, TrainingHost, lay_out_job, remove_leftovers, start_hosts
from launch.local.processes import has_lost_supervisor, start_supervisor
from launch.local.records import RUNNING, Record, Records, now, select_fields
from launch.local.storage import check_channels, deliver, deliver_folder, fetch_channels, local_path, pack

KIND = "training-job"
_SUMMARY = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)
_POLL_S = 0.1
_INTERRUPTED = "Interrupted"  # reason and secondary status
_DEFAULT_MAX_RUNTIME_S = 86400
_MAX_REASON = 1024  # characters of a failure reason that the platform shows
# Field of the request, folder below /opt/ml/output, name below the output path.
_SAVED = (("DebugHookConfig", "tensors", "debug-output"), ("ProfilerConfig", "profiler", "profiler-output"))


class TrainingJobs:
    """Create, describe, list and stop training jobs.

    Args:
        folder: the local client's folder.
        grace_s: seconds between SIGTERM and SIGKILL when a job is stopped.
        interrupt_after_s: seconds after which a new job is interrupted once, as on Spot capacity; 0 means never.
    """

    def __init__(self, folder: Path, grace_s: float, interrupt_after_s: float = 0) -> None:
        self._root = folder
        self._grace_s = grace_s
        self._interrupt_after_s = interrupt_after_s
        self.records = Records(folder, KIND)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a job.

        Raises:
            ParamValidationError: the request is not the API's.
            ClientError: the name is taken, or the local client cannot run this job.
        """
        check_request("CreateTrainingJob", request)
        check_channels(request)
        if "CheckpointConfig" in request:
            local_path(request["CheckpointConfig"]["S3Uri"], "CheckpointConfig.S3Uri")
        if "InstanceType" not in request.get("ResourceConfig", {}):
            raise invalid("ResourceConfig: the local client needs InstanceType, and has no instance groups")
        name = request["TrainingJobName"]
        self.records.create(name, _new_record(request, self.records.arn(name)))
        arguments = [str(self._root), name, str(self._grace_s), str(self._interrupt_after_s)]
        try:
            start_supervisor("launch.local.training", *arguments, folder=self.records.folder(name))
        except OSError:
            self.records.delete(name)
            raise
        return {"TrainingJobArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        """Return a job's record. A job whose supervisor was killed becomes Failed.

        Raises:
            ClientError: there is no such job.
        """
        record = self.records.read(name)
        if record["TrainingJobStatus"] in RUNNING and has_lost_supervisor(self.records.folder(name)):
            record = self._mark_dead(name)
        return record

    def stop(self, name: str) -> None:
        """Ask the supervisor to stop a job.

        Raises:
            ClientError: there is no such job, or it is not running.
        """
        with self.records.edit(name) as record:
            if record["TrainingJobStatus"] != "InProgress":
                raise invalid(f"the training job {name!r} is {record['TrainingJobStatus']}, so it can't be stopped")
            record["TrainingJobStatus"] = "Stopping"
            record["LastModifiedTime"] = now()

    def summaries(self) -> list[Record]:
        """Return the list entries of all jobs, newest first."""
        return [select_fields(self.describe(name), _SUMMARY) for name in self.records.names()]

    def _mark_dead(self, name: str) -> Record:
        with self.records.edit(name) as record:
            # The supervisor may have finished the job between the caller's read and its own end.
            if record["TrainingJobStatus"] in RUNNING:
                remove_leftovers(record, self.records.folder(name))
                record["TrainingJobStatus"] = record["SecondaryStatus"] = "Failed"
                record["FailureReason"] = "InternalServerError: the process that ran this job was killed"
                record["TrainingEndTime"] = record["LastModifiedTime"] = now()
        return self.records.read(name)


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


@dataclass
class TrainingSupervisor:
    """Runs one job from its channels to its artifacts, and records its status."""

    records: Records
    name: str
    grace_s: float
    interrupt_after_s: float = 0
    _deadline: float = inf  # as of time.monotonic()
    _interrupt_at: float = inf

    def run(self) -> None:
        """Run the job. Any failure ends up in its record."""
        request = self.records.read(self.name)
        folder = self.records.folder(self.name)
        try:
            self._enter("Downloading")
            channels = fetch_channels(request, folder / "input")
            layout, hosts, stop_reason = self._attempt(request, channels)
            if stop_reason == _INTERRUPTED:
                self._log_interruption(request, hosts)
                layout, hosts, stop_reason = self._attempt(request, channels)
            self._finish(request, layout, hosts, stop_reason)
        except (UserError, ClientError) as error:
            self._end("Failed", "Failed", FailureReason=f"ClientError: {error}"[:_MAX_REASON])
        except Exception as error:
            self._end("Failed", "Failed", FailureReason=failure_reason(error, folder)[:_MAX_REASON])
            if not is_disk_full(error):
                traceback.print_exc()

    def _attempt(
        self, request: Record, channels: Mapping[str, Path]
    ) -> tuple[JobLayout, list[TrainingHost], str | None]:
        """Run the hosts from a fresh layout, in which only the checkpoints are of an earlier attempt.

        Returns:
            The layout; the hosts, ended; and the reason why they were stopped, if they were.
        """
        folder = self.records.folder(self.name)
        layout = lay_out_job(request, channels, folder)
        try:
            hosts, stop_reason = self._train(request, layout)
        finally:
            remove_leftovers(request, folder)
        return layout, hosts, stop_reason

    def _train(self, request: Record, layout: JobLayout) -> tuple[list[TrainingHost], str | None]:
        """Run the hosts; return them, ended, and the reason why they were stopped, if they were."""
        is_first = self._deadline == inf
        started: dict[str, Any] = {"TrainingStartTime": now()} if is_first else {}
        self._enter("Training", **started)
        environment = {
            **request.get("Environment", {}),
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.records.arn(self.name),
        }
        hosts = start_hosts(request, layout, self.records.folder(self.name), environment)
        if is_first:
            max_runtime_s = request["StoppingCondition"].get("MaxRuntimeInSeconds", _DEFAULT_MAX_RUNTIME_S)
            self._deadline = time.monotonic() + max_runtime_s
            self._interrupt_at = time.monotonic() + self.interrupt_after_s if self.interrupt_after_s else inf
        reason: str | None = None
        while any(host.poll() is None for host in hosts):
            reason = self._reason_to_stop()
            # If one host fails, the others would wait for it for ever.
            if reason or any(host.code for host in hosts):
                _stop(hosts, self.grace_s)
                break
            time.sleep(_POLL_S)
        return hosts, reason

    def _reason_to_stop(self) -> str | None:
        if self.records.read(self.name)["TrainingJobStatus"] == "Stopping":
            return "Stopped"
        if time.monotonic() > self._deadline:
            return "MaxRuntimeExceeded"
        if time.monotonic() > self._interrupt_at:
            self._interrupt_at = inf
            return _INTERRUPTED
        return None

    def _log_interruption(self, request: Record, hosts: Sequence[TrainingHost]) -> None:
        checkpoints = request.get("CheckpointConfig", {}).get("S3Uri")
        kept = f"with the checkpoints in {checkpoints}" if checkpoints else "from the beginning: it has no checkpoints"
        message = f"interrupted after {self.interrupt_after_s:g} s, as on Spot capacity; it starts again {kept}"
        for host in hosts:
            with (self.records.folder(self.name) / "logs" / f"{host.name}.log").open("a", encoding="utf-8") as log:
                log.write(f"{message}\n")
        self._enter(_INTERRUPTED, message)
        self._enter("Starting")

    def _finish(self, request: Record, layout: JobLayout, hosts: list[TrainingHost], stop_reason: str | None) -> None:
        bases = list(layout.bases.values())
        codes = {host.name: host.code or 0 for host in hosts}
        failed = stop_reason is None and any(codes.values())
        self._enter("Uploading", TrainingEndTime=now())
        self._deliver(request, bases, with_model=not failed)
        logs = sorted((self.records.folder(self.name) / "logs").iterdir())
        metrics = _final_metrics(logs, request["AlgorithmSpecification"].get("MetricDefinitions", []))
        if failed:
            self._end("Failed", "Failed", FailureReason=_failure_reason(bases, codes), FinalMetricDataList=metrics)
        else:
            status = "Stopped" if stop_reason else "Completed"
            self._end(status, stop_reason or "Completed", FinalMetricDataList=metrics)

    def _deliver(self, request: Record, bases: list[Path], *, with_model: bool) -> None:
        folder, output = self.records.folder(self.name), request["OutputDataConfig"]["S3OutputPath"]
        if pack([base / "output" / "data" for base in bases], folder / "output.tar.gz"):
            deliver(folder / "output.tar.gz", output, self.name)
        if with_model and pack([base / "model" for base in bases], folder / "model.tar.gz"):
            uri = deliver(folder / "model.tar.gz", output, self.name)
            self.records.update(self.name, ModelArtifacts={"S3ModelArtifacts": uri})
        for key, saved, name in _SAVED:
            target = request.get(key, {}).get("S3OutputPath")
            deliver_folder([base / "output" / saved for base in bases], target, self.name, name)

    def _enter(self, secondary_status: str, message: str = "", **fields: Any) -> None:
        with self.records.edit(self.name) as record:
            moment = now()
            record["SecondaryStatusTransitions"][-1]["EndTime"] = moment
            detail = {"StatusMessage": message} if message else {}
            record["SecondaryStatusTransitions"].append({"Status": secondary_status, "StartTime": moment, **detail})
            record.update({"SecondaryStatus": secondary_status, "LastModifiedTime": moment, **fields})

    def _end(self, status: str, secondary_status: str, **fields: Any) -> None:
        record = self.records.read(self.name)
        ended = record.get("TrainingEndTime") or now()
        seconds = round((ended - record.get("TrainingStartTime", ended)).total_seconds())
        times = {"TrainingEndTime": ended, "TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": 0}
        self._enter(secondary_status, TrainingJobStatus=status, **times, **fields)


def _stop(hosts: list[TrainingHost], grace_s: float) -> None:
    """Send SIGTERM to the hosts, then SIGKILL to those that still run after ``grace_s`` seconds."""
    for host in hosts:
        host.terminate()
    deadline = time.monotonic() + grace_s
    while any(host.poll() is None for host in hosts) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for host in hosts:
        if host.poll() is None:
            host.kill()
    while any(host.poll() is None for host in hosts):
        time.sleep(_POLL_S)


def _failure_reason(bases: Iterable[Path], codes: Mapping[str, int]) -> str:
    """Return the content of the first failure file, or the hosts' exit codes."""
    for base in bases:
        path = base / "output" / "failure"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace").strip()[:_MAX_REASON]
    failed = ", ".join(f"{host} ended with exit code {code}" for host, code in codes.items() if code)
    return f"AlgorithmError: {failed}; there is no output/failure: see the job's log"


def _final_metrics(logs: Iterable[Path], definitions: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Extract the last value of each metric from the logs, as ``FinalMetricDataList``."""
    values: dict[str, float] = {}
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    for definition in definitions:
        found = re.findall(definition["Regex"], text)
        if found:
            values[definition["Name"]] = float(found[-1] if isinstance(found[-1], str) else found[-1][0])
    return [{"MetricName": name, "Value": value, "Timestamp": now()} for name, value in values.items()]


def main() -> None:
    root, name, grace_s, interrupt_after_s = sys.argv[1:]
    TrainingSupervisor(Records(Path(root), KIND), name, float(grace_s), float(interrupt_after_s)).run()


if __name__ == "__main__":
    main()

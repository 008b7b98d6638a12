"""Runs one training job of this machine to its end: data, hosts, time limit, stop request, artifacts, status."""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from launch.local.artifacts import deliver, deliver_folder, failure_reason, final_metrics, pack
from launch.local.channels import fetch_channels
from launch.local.hosts import Host, remove_leftovers, start_hosts
from launch.local.job_layout import Layout, lay_out_job
from launch.local.records import Record, Records, now
from launch.local.training import KIND

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

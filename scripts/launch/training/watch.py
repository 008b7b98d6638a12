"""Training jobs: start, stop, follow to the end, and show the results."""

import tempfile
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws.clients import s3_client
from aws.errors import CloudError, translate_errors
from classifier.archives import ArchiveError, unpack_tar
from launch.local.storage import is_local, local_path
from launch.platform.clients import Platform
from launch.platform.monitoring import TRAINING_JOBS, JobMonitor, LogTail, Record, describe_last_lines, follow_job
from launch.platform.price_list import Use
from launch.platform.prices import Rate, describe_billed, find_rate, hours
from launch.terminal import command, is_terminal, print_status

_REPORT = "report.html"
_MAX_REPORT_BYTES = 10 * 10**9  # the debugger's tensors take up to 0.2 GB


def start(platform: Platform, request: Mapping[str, Any]) -> None:
    """Create a training job.

    Raises:
        CloudError: AWS refused the request.
    """
    with translate_errors(f"training job {request['TrainingJobName']}"):
        platform.sagemaker.create_training_job(**request)


def stop(platform: Platform, name: str) -> None:
    """Stop a training job; it keeps the best model so far.

    Raises:
        CloudError: there is no such job, or it has ended.
    """
    with translate_errors(f"training job {name}"):
        platform.sagemaker.stop_training_job(TrainingJobName=name)
    print_status(f"train: stopping {name}; it keeps its best model so far")


def find_job(platform: Platform, name: str) -> Record:
    """Return a training job's description.

    Raises:
        CloudError: there is no such job, or AWS can't be asked.
    """
    with translate_errors(f"training job {name}"):
        return platform.sagemaker.describe_training_job(TrainingJobName=name)


@dataclass(frozen=True)
class TrainingWatch:
    """Follows a training job and shows its results.

    Attributes:
        name: the job's name.
        local: whether the job runs on this machine, where nothing is billed.
        reports: folder into which the job's reports are unpacked.
    """

    platform: Platform
    name: str
    local: bool
    reports: Path

    def run(self) -> int:
        """Follow the job to its end.

        Returns:
            The exit code: 0 if the job completed or was stopped, 1 if it failed, 130 after Ctrl-C.

        Raises:
            CloudError: AWS refused a request or can't be reached; how to stop or watch the running job is printed.
        """
        tail = LogTail(self.platform.logs, TRAINING_JOBS, f"{self.name}/")
        record = follow_job(
            lambda: self.platform.sagemaker.describe_training_job(TrainingJobName=self.name),
            JobMonitor(tail, lambda line: print(line, flush=True)),
            name=self.name,
            kind="training",
            interval_s=self.platform.interval_s,
            on_detach=self._print_detached,
        )
        if record is None:
            return 130
        reports = self._fetch_reports(record)
        if record["TrainingJobStatus"] == "Failed":
            self._print_billed(record)
            _show(reports)
            reason = record.get("FailureReason", "no reason was given").strip().partition("\n")[0]
            print_status(f"train: {self.name} failed: {reason}{describe_last_lines(tail)}")
            return 1
        self._print_results(record, reports)
        return 0

    def _print_detached(self, record: Record) -> None:
        # Before its first description, the cost is on the screen.
        cost = f": {'this machine' if self.local else self._rate(record)}" if record else ""
        print_status(f"train: stopped watching; the job keeps running{cost}")
        print_status(f"  stop it:        {command('train', '--stop', self.name)}{self.platform.flags}")
        print_status(f"  watch it again: {command('train', '--watch', self.name)}{self.platform.flags}")

    def _print_results(self, record: Record, reports: Path | None) -> None:
        for metric in record.get("FinalMetricDataList", ()):
            print(f"metric      {metric['MetricName']}={metric['Value']:.4g}")
        self._print_billed(record)
        if record["TrainingJobStatus"] == "Stopped":
            timed_out = record["SecondaryStatus"] == "MaxRuntimeExceeded"
            print(f"stopped     {'--max-run exceeded' if timed_out else 'on request'}")
        artifact = record.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        print(f"artifact    {artifact or 'none'}")
        _show(reports)
        if artifact:
            print(f"next        {command('deploy', artifact)}{self.platform.flags}")

    def _print_billed(self, record: Record) -> None:
        if "BillableTimeInSeconds" in record and not self.local:
            ran_s = record.get("TrainingTimeInSeconds") if record.get("EnableManagedSpotTraining") else None
            print(
                f"billed      {describe_billed(self._rate(record), record['BillableTimeInSeconds'], ran_s)}", flush=True
            )

        self._print_warm_pool(record)

    def _print_warm_pool(self, record: Record) -> None:
        keep_s = record.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds")
        if keep_s and record.get("WarmPoolStatus", {}).get("Status") == "Available":
            end = "--resource-config KeepAlivePeriodInSeconds=0"
            region = self.platform.flags
            print(f"warm pool   {self._rate(record)}, for at most {hours(keep_s)}", flush=True)
            print(f"end it      aws sagemaker update-training-job --training-job-name {self.name} {end}{region}")

    def _rate(self, record: Record) -> Rate:
        resources = record["ResourceConfig"]
        return find_rate(
            Use.TRAINING, resources["InstanceType"], resources.get("InstanceCount", 1), self.platform.region
        )

    def _fetch_reports(self, record: Record) -> Path | None:
        """Unpack the job's ``output.tar.gz`` and return its folder, or None if there is none.

        The copy from S3 is removed in any case, and so is the folder if nothing was unpacked into it.
        """
        uri = f"{record['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output/output.tar.gz"
        try:
            self.reports.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=self.reports) as folder:
                archive = local_path(uri, "output") if is_local(uri) else _download(uri, Path(folder))
                unpack_tar(archive, self.reports, max_bytes=_MAX_REPORT_BYTES)
            return self.reports
        except (FileNotFoundError, CloudError):
            pass
        except (ArchiveError, OSError) as error:
            print_status(f"train: {uri} can't be unpacked: {error}")
        with suppress(OSError):
            self.reports.rmdir()
        return None


def _download(uri: str, folder: Path) -> Path:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with translate_errors(uri):
        s3_client(num_connections=1).download_file(bucket, key, str(folder / "output.tar.gz"))
    return folder / "output.tar.gz"


def _show(reports: Path | None) -> None:
    """Print the report page's path, and open it in a browser if a person is looking."""
    if reports is None:
        return
    page = next(iter(sorted(reports.rglob(_REPORT))), None)
    print(f"reports     {page or reports}", flush=True)
    if page and is_terminal():
        webbrowser.open(page.as_uri())

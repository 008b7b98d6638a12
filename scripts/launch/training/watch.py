"""Training jobs: create, stop, follow to the end, and show the results."""

import tempfile
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import s3_client
from aws.errors import CloudError, translate_errors
from classifier.archives import ArchiveError, unpack_tar
from launch.local.storage import is_local, local_path
from launch.platform.clients import Platform
from launch.platform.jobs import Job
from launch.platform.monitoring import TRAINING_JOBS, JobMonitor, LogTail, Record, describe_last_lines
from launch.platform.price_list import Use
from launch.platform.prices import Rate, describe_billed, find_rate, hours
from launch.terminal import command, is_terminal, print_status

_REPORT = "report.html"
_MAX_REPORT_BYTES = 10 * 10**9  # the debugger's tensors take up to 0.2 GB


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
    """Creates a training job, follows it, and shows its results.

    Attributes:
        name: the job's name.
        local: whether the job runs on this machine, where nothing is billed.
        reports: folder into which the job's reports are unpacked.
    """

    platform: Platform
    name: str
    local: bool
    reports: Path

    def run(self, request: Mapping[str, Any] | None = None, *, is_followed: bool = True) -> int:
        """Create the job and follow it to its end.

        Args:
            request: the CreateTrainingJob request; None if the job exists.
            is_followed: whether to wait for the end.

        Returns:
            The exit code: 0 if the job completed or was stopped, 1 if it failed, 130 after Ctrl-C.

        Raises:
            CloudError: AWS refused a request or can't be reached; how to stop or watch a job that may run is printed.
            KeyboardInterrupt: Ctrl-C was pressed before the job was created.
        """
        tail = LogTail(self.platform.logs, TRAINING_JOBS, f"{self.name}/")
        sagemaker = self.platform.sagemaker
        send = None if request is None else partial(sagemaker.create_training_job, **request)
        monitor = JobMonitor(tail, lambda line: print(line, flush=True))
        record = self._job(request or {}).run(monitor, send, is_followed=is_followed)
        if record is None:
            return 130
        if not is_followed:
            return 0
        reports = self._fetch_reports(record)
        if record["TrainingJobStatus"] == "Failed":
            self._print_billed(record)
            _show(reports)
            reason = record.get("FailureReason", "no reason was given").strip().partition("\n")[0]
            print_status(f"train: {self.name} failed: {reason}{describe_last_lines(tail)}")
            return 1
        self._print_results(record, reports)
        return 0

    def _job(self, latest: Record) -> Job:
        return Job(
            program="train",
            kind="training",
            name=self.name,
            status_key="TrainingJobStatus",
            describe=lambda: self.platform.sagemaker.describe_training_job(TrainingJobName=self.name),
            interval_s=self.platform.interval_s,
            describe_cost=lambda record: "this machine" if self.local else str(self._rate(record)),
            commands={
                "stop it": f"{command('train', '--stop', self.name)}{self.platform.flags}",
                "watch it": f"{command('train', '--watch', self.name)}{self.platform.flags}",
            },
            latest=latest,
        )

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
        except FileNotFoundError:
            pass
        except CloudError as error:
            print_status(f"train: the reports were not downloaded: {error}")
        except (ArchiveError, OSError) as error:
            print_status(f"train: {uri} can't be unpacked: {error}")
        with suppress(OSError):
            self.reports.rmdir()
        return None


def _download(uri: str, folder: Path) -> Path:
    """Download an archive.

    Raises:
        FileNotFoundError: there is none.
        CloudError: S3 refused the download or can't be reached.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    archive = folder / "output.tar.gz"
    with translate_errors(uri):
        try:
            s3_client(num_connections=1).download_file(bucket, key, str(archive))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NoSuchBucket"):
                raise FileNotFoundError(uri) from None
            raise
    return archive


def _show(reports: Path | None) -> None:
    """Print the report page's path, and open it in a browser if a person is looking."""
    if reports is None:
        return
    page = next(iter(sorted(reports.rglob(_REPORT))), None)
    print(f"reports     {page or reports}", flush=True)
    if page and is_terminal():
        webbrowser.open(page.as_uri())

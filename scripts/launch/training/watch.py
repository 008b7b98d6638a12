"""A training job, started, watched to its end, and what it left looked at."""

import argparse
import tarfile
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws.clients import s3_client
from aws.errors import CloudError, explained
from classifier.archives import unpack_tar
from launch.cli import say
from launch.local.storage import is_local, local_path
from launch.platform.clients import Platform, command, is_finished, is_terminal
from launch.platform.logs import TRAINING_JOBS, Follower, LogTail
from launch.platform.polling import wait
from launch.platform.prices import describe_hourly

_NUM_LAST_LINES = 10
_REPORT = "report.html"


def start(platform: Platform, request: Mapping[str, Any]) -> None:
    """
    Raises:
        CloudError: AWS refuses the request.
    """
    with explained(f"training job {request['TrainingJobName']}"):
        platform.sagemaker.create_training_job(**request)


def stop(platform: Platform, name: str) -> int:
    """
    Raises:
        CloudError: there is no such job, or it has ended.
    """
    with explained(f"training job {name}"):
        platform.sagemaker.stop_training_job(TrainingJobName=name)
    say(f"{name} is asked to stop; it keeps its best model so far")
    return 0


def watch(platform: Platform, name: str, options: argparse.Namespace) -> int:
    """Follow a job to its end; 0 if it completed or stopped, else 1.

    Raises:
        CloudError: AWS refuses, or can't be reached any more; the job goes on, which is said.
    """
    tail = LogTail(platform.logs, TRAINING_JOBS, f"{name}/")
    follower = Follower(tail, lambda line: print(line, flush=True))
    seen: dict[str, Any] = {}

    def show(record: Mapping[str, Any]) -> None:
        seen.update(record)
        follower(record)

    try:
        # Within: who reads this line may press Ctrl-C at once, and is to hear what goes on.
        print(f"job         {name}", flush=True)
        record = wait(
            lambda: platform.sagemaker.describe_training_job(TrainingJobName=name),
            what=f"training job {name}",
            done=lambda one: is_finished(one, "TrainingJobStatus"),
            each=show,
            interval_s=platform.interval_s,
        )
    except (KeyboardInterrupt, CloudError) as error:
        follower.close()
        _say_what_goes_on(platform, name, seen, local=options.local)
        if isinstance(error, KeyboardInterrupt):
            return 130
        raise
    follower.close()
    return _conclude(platform, record, tail, options)


def _say_what_goes_on(platform: Platform, name: str, record: Mapping[str, Any], *, local: bool) -> None:
    machines = "this machine"
    if not local:
        resources = record.get("ResourceConfig", {})
        kind, num = resources.get("InstanceType"), resources.get("InstanceCount", 1)
        machines = f"{num} × {kind}, {describe_hourly(kind, num)}"
    say(f"train: no longer watching; the training goes on: {machines}")
    say(f"  stop it:        {command('train', '--stop', name)}{platform.flags}")
    say(f"  watch it again: {command('train', '--watch', name)}{platform.flags}")


def _conclude(platform: Platform, record: Mapping[str, Any], tail: LogTail, options: argparse.Namespace) -> int:
    name, status = record["TrainingJobName"], record["TrainingJobStatus"]
    reports = _fetch_reports(record, options)
    if status == "Failed":
        _show(reports)
        reason = record.get("FailureReason", "no reason is given").strip().partition("\n")[0]
        lines = "".join(f"\n  {line}" for line in tail.last_lines(_NUM_LAST_LINES))
        say(f"train: {name} failed: {reason}{f'{chr(10)}last lines of its log:{lines}' if lines else ''}")
        return 1
    for metric in record.get("FinalMetricDataList", ()):
        print(f"metric      {metric['MetricName']}={metric['Value']:.4g}")
    if "BillableTimeInSeconds" in record and not options.local:
        print(f"billed      {record['BillableTimeInSeconds']} s")
    if status == "Stopped":
        print(f"stopped     {'after --max-run' if record['SecondaryStatus'] == 'MaxRuntimeExceeded' else 'as asked'}")
    artifact = record.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    print(f"artifact    {artifact or 'none'}")
    _show(reports)
    if artifact:
        print(f"next        {command('deploy', artifact)}{platform.flags}")
    return 0


def _fetch_reports(record: Mapping[str, Any], options: argparse.Namespace) -> Path | None:
    """Unpack output.tar.gz; none, where the job left none."""
    name = record["TrainingJobName"]
    place = f"{record['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output/output.tar.gz"
    folder: Path = options.reports or options.folder / "reports" / name
    try:
        archive = local_path(place, "output") if is_local(place) else _download(place, folder)
        folder.mkdir(parents=True, exist_ok=True)
        unpack_tar(archive, folder)
    except (FileNotFoundError, CloudError):
        return None
    except (tarfile.TarError, OSError) as error:
        say(f"train: {place} can't be unpacked: {error}")
        return None
    return folder


def _download(place: str, folder: Path) -> Path:
    bucket, _, key = place.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    with explained(place):
        s3_client(num_connections=1).download_file(bucket, key, str(folder / "output.tar.gz"))
    return folder / "output.tar.gz"


def _show(reports: Path | None) -> None:
    if reports is None:
        return
    page = next(iter(sorted(reports.rglob(_REPORT))), None)
    print(f"reports     {page or reports}", flush=True)
    if page and is_terminal():
        webbrowser.open(page.as_uri())

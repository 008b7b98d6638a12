"""Tuning jobs, on AWS or on this machine: create, stop, follow to the end, and write the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import translate_errors
from classifier.errors import UserError
from launch.local.storage import is_local, local_path
from launch.platform.clients import Platform
from launch.platform.jobs import Job
from launch.platform.monitoring import Record
from launch.platform.price_list import Use
from launch.platform.prices import Rate, describe_limit, describe_spent, find_rate, print_cost
from launch.platform.resources import all_pages
from launch.terminal import command, print_status
from launch.tuning.request import TuningSpec, fixed_hyperparameters, read_spec
from launch.tuning.results import display_path, report_results
from launch.tuning.table import TrialDisplay
from launch.tuning.trials import RUNNING, Trial, from_summary, reason_to_end

_STATUS = "HyperParameterTuningJobStatus"


class TuningFailedError(UserError):
    """The tuning job as a whole failed; the message has the platform's reason."""


def stop(platform: Platform, name: str) -> None:
    """Stop a tuning job and its running trials.

    Raises:
        CloudError: there is no such job, or it has ended.
    """
    with translate_errors(f"tuning job {name}"):
        platform.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    print_status(f"tune: stopping {name} and its running trials")


def find_job(platform: Platform, name: str) -> Record:
    """Return a tuning job's description.

    Raises:
        CloudError: there is no such job, or AWS can't be asked.
    """
    with translate_errors(f"tuning job {name}"):
        return platform.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


@dataclass(frozen=True)
class TuningWatch:
    """Creates a tuning job, follows its trials, and writes its results.

    Attributes:
        job: the job's description, or the request that creates it.
        local: whether the job runs on this machine, where nothing is billed.
        folder: the folder of this machine that gets the results.
    """

    platform: Platform
    job: Mapping[str, Any]
    local: bool
    folder: Path

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job["HyperParameterTuningJobName"]

    def run(self, *, create: bool = False, is_followed: bool = True) -> int:
        """Follow the job to its end, and write the results.

        Args:
            create: whether to create the job first.
            is_followed: whether to wait for the end.

        Returns:
            The exit code: 0 if the job completed or was stopped, 130 after Ctrl-C.

        Raises:
            UserError: the job failed, or no trial has completed.
            CloudError: AWS refused a request or can't be reached; how to stop or watch a job that may run is printed.
            KeyboardInterrupt: Ctrl-C was pressed before the job was created.
        """
        spec, sagemaker = read_spec(self.job), self.platform.sagemaker
        monitor = _TrialMonitor(TrialDisplay(spec.metric, spec.ranges.names, spec.num_jobs()))
        send = partial(sagemaker.create_hyper_parameter_tuning_job, **self.job) if create else None
        if create and self.local:
            self._print_resumption(spec)
        record = self._job().run(monitor, send, is_followed=is_followed)
        if record is None:
            return 130
        return self._conclude(spec, record) if is_followed else 0

    def _job(self) -> Job:
        return Job(
            program="tune",
            kind="tuning",
            name=self.name,
            status_key=_STATUS,
            describe=self._describe,
            interval_s=self.platform.interval_s,
            describe_cost=lambda job: "this machine" if self.local else describe_cost(job, self.platform.region),
            commands={
                "stop it": f"{command('tune', '--stop', self.name)}{self.platform.flags}",
                "watch it": f"{command('tune', '--watch', self.name)}{self.platform.flags}",
            },
            latest=self.job,
        )

    def _describe(self) -> Record:
        """Return the job's description, with its trials in the order in which they were created."""
        sagemaker = self.platform.sagemaker
        record = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.name)
        trials = all_pages(
            sagemaker.list_training_jobs_for_hyper_parameter_tuning_job,
            "TrainingJobSummaries",
            HyperParameterTuningJobName=self.name,
            SortBy="CreationTime",
            SortOrder="Ascending",
        )
        return {**record, "Trials": [from_summary(one) for one in trials]}

    def _print_resumption(self, spec: TuningSpec) -> None:
        try:
            record = self._describe()
        except ClientError:
            # The job does not exist yet.
            return
        if record[_STATUS] in RUNNING:
            return
        trials: Sequence[Trial] = record["Trials"]
        num_ended = sum(not trial.is_running for trial in trials)
        print(f"resuming    {num_ended} of {spec.num_jobs()} trials are done", flush=True)

    def _conclude(self, spec: TuningSpec, record: Record) -> int:
        trials: Sequence[Trial] = record["Trials"]
        if not self.local:
            # Failed trials are billed as well.
            print_cost(_describe_spent(record, trials, self.platform.region))
        if record[_STATUS] == "Failed":
            reason = record.get("FailureReason", "no reason was given")
            again = "; the same command resumes it" if self.local and "was killed" in reason else ""
            raise TuningFailedError(f"tuning job {self.name} failed: {reason}{again}")
        print(f"ended       {_reason(spec, record)}", flush=True)
        best = report_results(self.folder, spec, fixed_hyperparameters(self.job), trials)
        if best is None:
            raise UserError(f"tuning job {self.name}: no trial has completed")
        artifact = f"{record['TrainingJobDefinition']['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{best.name}"
        artifact = f"{artifact}/output/model.tar.gz"
        shown = display_path(local_path(artifact, "output")) if is_local(artifact) else artifact
        print(f"model       {shown}", flush=True)
        print(f"next        {command('deploy', best.name)}{self.platform.flags}", flush=True)
        return 0


@dataclass(frozen=True)
class _TrialMonitor:
    display: TrialDisplay

    def update(self, record: Mapping[str, Any]) -> None:
        self.display.show(record["Trials"])

    def close(self) -> None:
        """Leave the table as it is."""


def _reason(spec: TuningSpec, record: Record) -> str:
    if record[_STATUS] == "Stopped":
        return "on request"
    ended = record.get("HyperParameterTuningEndTime") or datetime.now(UTC)
    seconds = (ended - record["CreationTime"]).total_seconds()
    return reason_to_end(spec, record["Trials"], seconds) or record[_STATUS]


def describe_cost(job: Mapping[str, Any], region: str | None) -> str:
    """Return what a tuning job costs on AWS at most.

    Args:
        job: the job's description, or the request that creates it.
        region: default: that of the environment.
    """
    definition, limits = job["TrainingJobDefinition"], job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    num_jobs, parallel = limits.get("MaxNumberOfTrainingJobs", 1), limits["MaxParallelTrainingJobs"]
    max_run_s, is_spot = definition["StoppingCondition"]["MaxRuntimeInSeconds"], _is_spot(definition)
    rate, max_runtime_s = _rate(definition, region), limits.get("MaxRuntimeInSeconds", 0)
    if 0 < parallel * max_runtime_s < num_jobs * max_run_s:
        return describe_limit(rate, max_runtime_s, jobs=parallel, word="trials at a time", spot=is_spot)
    return describe_limit(rate, max_run_s, jobs=num_jobs, spot=is_spot)


def _describe_spent(job: Mapping[str, Any], trials: Sequence[Trial], region: str | None) -> str:
    definition = job["TrainingJobDefinition"]
    seconds = sum(one.seconds or 0.0 for one in trials)
    return describe_spent(_rate(definition, region), seconds, spot=_is_spot(definition))


def _is_spot(definition: Mapping[str, Any]) -> bool:
    return definition.get("EnableManagedSpotTraining", False)


def _rate(definition: Mapping[str, Any], region: str | None) -> Rate:
    resources = definition["ResourceConfig"]
    return find_rate(Use.TRAINING, resources["InstanceType"], resources["InstanceCount"], region)

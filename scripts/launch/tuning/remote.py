"""Tuning jobs on AWS: create one, follow its trials, fetch its results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws.clients import client
from aws.errors import CloudError, translate_errors
from classifier.errors import UserError
from launch.platform.clients import PlatformOptions
from launch.platform.monitoring import wait
from launch.platform.price_list import Use
from launch.platform.prices import Rate, describe_limit, describe_spent, find_rate, print_cost
from launch.terminal import command, print_status
from launch.training.options import check_training_places
from launch.training.request import TrainingSpec
from launch.tuning.request import TuningSpec, tuning_request
from launch.tuning.results import report_results
from launch.tuning.table import TrialDisplay
from launch.tuning.trials import RUNNING, Trial, from_summary


class TuningFailedError(UserError):
    """The tuning job as a whole failed on AWS; the message has the platform's reason."""


@dataclass(frozen=True)
class RemoteTuner:
    """Creates a tuning job and polls it; ``client`` is boto3's ``sagemaker``."""

    client: Any
    spec: TuningSpec
    display: TrialDisplay
    poll_s: float
    sleep: Callable[[float], None]

    def create(self, request: Mapping[str, Any]) -> str:
        """Create the job and return its ARN.

        Raises:
            CloudError: AWS rejects the request.
        """
        with translate_errors(f"tuning job {self.spec.name}"):
            return self.client.create_hyper_parameter_tuning_job(**request)["HyperParameterTuningJobArn"]

    def find(self) -> None:
        """Check that the job exists.

        Raises:
            CloudError: it does not, or AWS can't be asked.
        """
        with translate_errors(f"tuning job {self.spec.name}"):
            self.client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.spec.name)

    def follow(self) -> tuple[str, Sequence[Trial]]:
        """Show the trials until the job has ended; return its status and all trials.

        Raises:
            TuningFailedError: the job as a whole has failed.
            CloudError: AWS can't be asked, or denies access.
        """
        record = wait(
            self._describe,
            what=f"tuning job {self.spec.name}",
            done=lambda one: one["HyperParameterTuningJobStatus"] not in RUNNING,
            each=lambda one: self.display.show(one["Trials"]),
            interval_s=self.poll_s,
            sleep=self.sleep,
        )
        if record["HyperParameterTuningJobStatus"] == "Failed":
            reason = record.get("FailureReason", "AWS gives no reason")
            raise TuningFailedError(f"tuning job {self.spec.name} failed: {reason}")
        return record["HyperParameterTuningJobStatus"], record["Trials"]

    def _describe(self) -> dict[str, Any]:
        """Return the job's description, with its trials in the order in which they were created."""
        name = self.spec.name
        description = self.client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        pages = self.client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
            HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
        )
        return {**description, "Trials": [from_summary(one) for page in pages for one in page["TrainingJobSummaries"]]}


@dataclass(frozen=True)
class RemoteTuning:
    """A tuning job on AWS, from its creation to its results.

    Attributes:
        training: what the trials have in common.
        folder: the folder on this machine that gets the results.
        poll_s: seconds between two looks at the job.
    """

    spec: TuningSpec
    training: TrainingSpec
    folder: Path
    region: str | None = None
    poll_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, *, wait: bool = True, create: bool = True) -> int:
        """Create the job and follow it; return the exit code.

        Args:
            wait: whether to follow the job to its end.
            create: if false, follow a job that exists.

        Raises:
            UserError: AWS rejects the job, the job fails, or no trial has completed.
            KeyboardInterrupt: following was interrupted; the job keeps running.
        """
        display = TrialDisplay(self.spec.metric, self.spec.ranges.names, self.spec.num_jobs())
        tuner = RemoteTuner(client("sagemaker", region=self.region), self.spec, display, self.poll_s, self.sleep)
        if create:
            self._create(tuner)
        else:
            tuner.find()
        if not wait:
            self._print_instructions()
            return 0
        try:
            status, trials = tuner.follow()
        except (KeyboardInterrupt, CloudError):
            self._print_instructions()
            raise
        print(f"ended       {status}", flush=True)
        self._print_spent(trials)
        best = report_results(self.folder, self.spec, self.training.hyperparameters, trials)
        if best is None:
            raise UserError(f"tuning job {self.spec.name}: no trial has completed")
        artifact = f"{self.training.output}/{best.name}/output/model.tar.gz"
        print(f"model       {artifact}", flush=True)
        print(f"next        {command('deploy', artifact)}", flush=True)
        return 0

    def _create(self, tuner: RemoteTuner) -> None:
        check_training_places(self.training, PlatformOptions(region=self.region))
        print_cost(describe_cost(self.spec, self.training, self.region))
        print(f"tuning job  {tuner.create(tuning_request(self.spec, self.training))}", flush=True)

    def _print_spent(self, trials: Sequence[Trial]) -> None:
        spot = self.training.resources.spot
        seconds = sum(one.seconds or 0.0 for one in trials)
        print_cost(describe_spent(_rate(self.training, self.region), seconds, spot=spot))

    def _print_instructions(self) -> None:
        name = self.spec.name
        stop = f"aws sagemaker stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name {name}"
        print_status(f"tuning job {name} keeps running on AWS, at its cost")
        print_status(f"  stop it:        {stop}")
        print_status(f"  watch it again: the same command with --name {name} --watch")


def describe_cost(spec: TuningSpec, training: TrainingSpec, region: str | None) -> str:
    """Return what a tuning job costs on AWS at most.

    Args:
        region: default: that of the environment.
    """
    resources, rate = training.resources, _rate(training, region)
    by_trials, by_time = spec.num_jobs() * resources.max_run_s, spec.parallel * (spec.max_runtime_s or 0)
    if 0 < by_time < by_trials:
        return describe_limit(
            rate, by_time // spec.parallel, jobs=spec.parallel, word="trials at a time", spot=resources.spot
        )
    return describe_limit(rate, resources.max_run_s, jobs=spec.num_jobs(), spot=resources.spot)


def _rate(training: TrainingSpec, region: str | None) -> Rate:
    resources = training.resources
    return find_rate(Use.TRAINING, resources.instance_type, resources.num_instances, region)

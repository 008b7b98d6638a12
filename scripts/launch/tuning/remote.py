"""A tuning job on AWS, watched: its trials while it runs, and how it ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws.clients import client
from aws.errors import translate_errors
from classifier.errors import UserError
from launch.cli import say
from launch.platform.clients import command
from launch.platform.polling import wait
from launch.platform.prices import describe_hourly
from launch.training.options import check_places
from launch.training.request import TrainingSpec
from launch.tuning.request import tuning_request
from launch.tuning.results import tell_results, write_results
from launch.tuning.spec import TuningSpec
from launch.tuning.table import Watcher
from launch.tuning.trials import Trial, from_summary

_RUNNING = ("InProgress", "Stopping")


class TuningFailedError(UserError):
    """A tuning job that AWS ended as failed; the message has its reason."""


@dataclass(frozen=True)
class RemoteTuner:
    """``client`` is boto3's ``sagemaker``."""

    client: Any
    spec: TuningSpec
    watcher: Watcher
    poll_s: float
    sleep: Callable[[float], None]

    def create(self, request: Mapping[str, Any]) -> str:
        """Start it; returns its ARN.

        Raises:
            CloudError: AWS refuses it.
        """
        with translate_errors(f"tuning job {self.spec.name}"):
            return self.client.create_hyper_parameter_tuning_job(**request)["HyperParameterTuningJobArn"]

    def follow(self) -> tuple[str, Sequence[Trial]]:
        """Show the trials until the job has ended → its status, and all trials.

        Raises:
            TuningFailedError: the job as a whole has failed.
            CloudError: AWS refuses to tell.
        """
        record = wait(
            self._look,
            what=f"tuning job {self.spec.name}",
            done=lambda one: one["HyperParameterTuningJobStatus"] not in _RUNNING,
            each=lambda one: self.watcher.show(one["Trials"]),
            interval_s=self.poll_s,
            sleep=self.sleep,
        )
        if record["HyperParameterTuningJobStatus"] == "Failed":
            raise TuningFailedError(
                f"tuning job {self.spec.name} failed: {record.get('FailureReason', 'AWS says no more')}"
            )
        return record["HyperParameterTuningJobStatus"], record["Trials"]

    def _look(self) -> dict[str, Any]:
        """The job's description, and its trials in the order in which they were created."""
        name = self.spec.name
        description = self.client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        pages = self.client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
            HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
        )
        return {**description, "Trials": [from_summary(one) for page in pages for one in page["TrainingJobSummaries"]]}


@dataclass(frozen=True)
class RemoteTuning:
    """``folder``, on this machine, gets the results; AWS is asked every ``poll_s`` seconds."""

    spec: TuningSpec
    training: TrainingSpec
    folder: Path
    region: str | None = None
    poll_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, *, wait: bool = True, create: bool = True) -> int:
        """Returns the exit code. Without ``create`` the job is one that runs already.

        Raises:
            UserError: AWS refuses the job, or ends it as failed.
            KeyboardInterrupt: it was interrupted; what goes on at AWS has been told.
        """
        watcher = Watcher(self.spec.metric, self.spec.ranges.names, self.spec.num_jobs())
        tuner = RemoteTuner(client("sagemaker", region=self.region), self.spec, watcher, self.poll_s, self.sleep)
        if create:
            self._create(tuner)
        if not wait:
            self._tell_what_goes_on()
            return 0
        try:
            status, trials = tuner.follow()
        except KeyboardInterrupt:
            self._tell_what_goes_on()
            raise
        print(f"ended       {status}", flush=True)
        best, written = write_results(self.folder, self.spec, self.training.hyperparameters, trials)
        tell_results(best, written, self.spec)
        if best is None:
            raise UserError(f"tuning job {self.spec.name}: no trial has completed")
        artifact = f"{self.training.output}/{best.name}/output/model.tar.gz"
        print(f"model       {artifact}", flush=True)
        print(f"next        {command('deploy', artifact)}", flush=True)
        return 0

    def _create(self, tuner: RemoteTuner) -> None:
        check_places(self.training, self.region)
        print(f"tuning job  {tuner.create(tuning_request(self.spec, self.training))}", flush=True)
        price = describe_hourly(self.training.instance_type, self.training.num_instances * self.spec.parallel)
        print(f"costs       {self.spec.parallel} trials at a time: {price}, until it ends", flush=True)

    def _tell_what_goes_on(self) -> None:
        name = self.spec.name
        stop = f"aws sagemaker stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name {name}"
        say(f"tuning job {name} runs on at AWS, and costs")
        say(f"  stop it:        {stop}")
        say(f"  watch it again: the same command with --name {name} --watch")

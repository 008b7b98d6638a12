"""A tuning job on AWS, watched: its trials while it runs, and how it ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.errors import UserError
from launch.cloud import explained
from launch.tuning.spec import TuningSpec
from launch.tuning.table import Watcher
from launch.tuning.trials import Trial, from_summary

_POLL_S = 15.0
_RUNNING = ("InProgress", "Stopping")


class TuningFailedError(UserError):
    """A tuning job that AWS ended as failed; the message has its reason."""


@dataclass(frozen=True)
class RemoteTuner:
    """``client`` is boto3's ``sagemaker``."""

    client: Any
    spec: TuningSpec
    watcher: Watcher
    poll_s: float = _POLL_S
    sleep: Callable[[float], object] = time.sleep

    def create(self, request: Mapping[str, Any]) -> str:
        """Start it; returns its ARN."""
        with explained("create_hyper_parameter_tuning_job"):
            answer = self.client.create_hyper_parameter_tuning_job(**request)
        return answer["HyperParameterTuningJobArn"]

    def follow(self) -> tuple[str, Sequence[Trial]]:
        """Show the trials until the job has ended → its status, and all trials.

        Raises:
            TuningFailedError: the job as a whole has failed.
        """
        while True:
            description = self._describe()
            trials = self.trials()
            self.watcher.show(trials)
            status = description["HyperParameterTuningJobStatus"]
            if status == "Failed":
                raise TuningFailedError(f"tuning job {self.spec.name}: {description.get('FailureReason', 'it failed')}")
            if status not in _RUNNING:
                return status, trials
            self.sleep(self.poll_s)

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they were created."""
        with explained("list_training_jobs_for_hyper_parameter_tuning_job"):
            pages = self.client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
                HyperParameterTuningJobName=self.spec.name, SortBy="CreationTime", SortOrder="Ascending"
            )
            return [from_summary(summary) for page in pages for summary in page["TrainingJobSummaries"]]

    def _describe(self) -> Mapping[str, Any]:
        with explained("describe_hyper_parameter_tuning_job"):
            return self.client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.spec.name)

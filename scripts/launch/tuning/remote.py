"""A tuning job on AWS, watched: its trials while it runs, and how it ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.errors import UserError
from launch.cloud import explained
from launch.tuning.spec import TuningSpec
from launch.tuning.table import Watcher
from launch.tuning.trials import Trial, from_summary
from launch.waiting import wait

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
        with explained(f"tuning job {self.spec.name}"):
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

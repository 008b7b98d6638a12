"""Local tuning jobs, each run by a supervisor process that starts training jobs.

The supervisor, ``launch.tuning.local``, is a user of the local client like any other, and so above this package.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from launch.local.errors import check_request, in_use, invalid
from launch.local.processes import has_lost_supervisor, start_supervisor
from launch.local.records import RUNNING, Record, Records, now, select_fields
from launch.local.storage import check_channels
from launch.local.training import TrainingJobs

KIND = "hyper-parameter-tuning-job"
# Field of a record that the supervisor keeps up to date: the entries of ListTrainingJobsForHyperParameterTuningJob.
TRIALS = "TrainingJobSummaries"
_STATUS = "HyperParameterTuningJobStatus"
_SUMMARY = (
    "HyperParameterTuningJobName",
    "HyperParameterTuningJobArn",
    _STATUS,
    "CreationTime",
    "HyperParameterTuningEndTime",
    "LastModifiedTime",
)


class TuningJobs:
    """Create, describe, list and stop tuning jobs.

    Unlike on the platform, a job that was stopped or killed is continued by creating it again with the same search,
    and so is one that has ended, with a larger number of trials. Trials that were interrupted do not count.

    Args:
        folder: the local client's folder.
        training: its training jobs, which the trials are.
        grace_s: seconds between SIGTERM and SIGKILL when a trial is stopped.
    """

    def __init__(self, folder: Path, training: TrainingJobs, grace_s: float) -> None:
        self._root = folder
        self._training = training
        self._grace_s = grace_s
        self.records = Records(folder, KIND)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a job.

        Raises:
            ParamValidationError: the request is not the API's.
            ClientError: the name is taken, or the local client cannot run this job.
        """
        check_request("CreateHyperParameterTuningJob", request)
        definition = request.get("TrainingJobDefinition", {})
        if "InstanceType" not in definition.get("ResourceConfig", {}):
            raise invalid("the local client needs TrainingJobDefinition, with ResourceConfig.InstanceType")
        check_channels(definition)
        self._check_parents(request)
        name = request["HyperParameterTuningJobName"]
        is_new = name not in self.records.names()
        if is_new:
            self.records.create(name, {**request, **self._started(name), "CreationTime": now(), TRIALS: []})
        else:
            self._continue(name, request)
        try:
            arguments = (str(self._root), name, str(self._grace_s))
            start_supervisor("launch.tuning.local", *arguments, folder=self.records.folder(name))
        except OSError:
            if is_new:
                self.records.delete(name)
            raise
        return {"HyperParameterTuningJobArn": self.records.arn(name)}

    def describe(self, name: str) -> Record:
        """Return a job's record, with the numbers of its trials and the best one. A killed job becomes Failed.

        Raises:
            ClientError: there is no such job.
        """
        record = self._read(name)
        trials = record.pop(TRIALS)
        best = _best(trials, record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["Type"])
        return {**record, **_counters(trials), **({"BestTrainingJob": best} if best else {})}

    def trials(self, name: str, sort_by: str = "Name", order: str = "Ascending") -> list[Record]:
        """Return the list entries of a job's trials.

        Raises:
            ClientError: there is no such job, or it can't be sorted that way.
        """
        if sort_by not in _SORT_KEYS:
            raise invalid(f"SortBy {sort_by}: one of {', '.join(_SORT_KEYS)}")
        # The supervisor lists them in the order of their creation.
        trials = list(enumerate(self._read(name)[TRIALS]))
        trials.sort(key=lambda pair: _SORT_KEYS[sort_by](*pair), reverse=order == "Descending")
        return [one for _, one in trials]

    def stop(self, name: str) -> None:
        """Ask the supervisor to stop a job and its running trials.

        Raises:
            ClientError: there is no such job, or it is not running.
        """
        self._read(name)
        with self.records.edit(name) as record:
            if record[_STATUS] != "InProgress":
                raise invalid(f"the tuning job {name!r} is {record[_STATUS]}, so it can't be stopped")
            record[_STATUS] = "Stopping"
            record["LastModifiedTime"] = now()

    def summaries(self) -> list[Record]:
        """Return the list entries of all jobs, newest first."""
        described = map(self.describe, self.records.names())
        return [
            {**select_fields(one, _SUMMARY), "Strategy": one["HyperParameterTuningJobConfig"]["Strategy"]}
            for one in described
        ]

    def _read(self, name: str) -> Record:
        record = self.records.read(name)
        if record[_STATUS] in RUNNING and has_lost_supervisor(self.records.folder(name)):
            self._mark_dead(name)
            record = self.records.read(name)
        return record

    def _mark_dead(self, name: str) -> None:
        with self.records.edit(name) as record:
            # The supervisor may have finished the job between the caller's read and its own end.
            if record[_STATUS] not in RUNNING:
                return
            for trial in record[TRIALS]:
                # It may have ended, or never have been created.
                with suppress(ClientError):
                    self._training.stop(trial["TrainingJobName"])
            record[TRIALS] = [one for one in record[TRIALS] if one["TrainingJobStatus"] not in RUNNING]
            record[_STATUS] = "Failed"
            record["FailureReason"] = "InternalServerError: the process that ran this job was killed"
            record["HyperParameterTuningEndTime"] = record["LastModifiedTime"] = now()

    def _started(self, name: str) -> Record:
        return {"HyperParameterTuningJobArn": self.records.arn(name), _STATUS: "InProgress", "LastModifiedTime": now()}

    def _continue(self, name: str, request: Mapping[str, Any]) -> None:
        """Prepare the record of a job that has ended for another run.

        Raises:
            ClientError: it has not ended, or searched something else.
        """
        self._read(name)
        with self.records.edit(name) as record:
            if record[_STATUS] in RUNNING:
                raise in_use(f"{KIND} {name!r} already exists, and is {record[_STATUS]}: watch it, or stop it first")
            before, after = _identity(record), _identity(request)
            changed = [what for what in after if after[what] != before[what]]
            if changed:
                raise in_use(
                    f"{KIND} {name!r} already exists, with other {' and '.join(changed)}: choose another name, or give "
                    "the same to continue it"
                )
            # Until the supervisor's, that of the earlier run would count as killed.
            (self.records.folder(name) / "supervisor.pid").unlink(missing_ok=True)
            for outdated in ("FailureReason", "HyperParameterTuningEndTime"):
                record.pop(outdated, None)
            record.update({**request, **self._started(name)})

    def _check_parents(self, request: Mapping[str, Any]) -> None:
        wanted = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
        for parent in request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", ()):
            name = parent["HyperParameterTuningJobName"]
            record = self._read(name)
            metric = record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
            if metric != wanted:
                raise invalid(f"WarmStartConfig: the objective of {name} is {metric}, not {wanted}: use the same")
            if record[_STATUS] in RUNNING:
                raise invalid(f"WarmStartConfig: {name} is {record[_STATUS]}: wait for its end")


def _identity(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has to be the same in all runs of a job, so that their trials are comparable."""
    config, definition = job["HyperParameterTuningJobConfig"], job["TrainingJobDefinition"]
    return {
        "objective": config["HyperParameterTuningJobObjective"],
        "strategy": config["Strategy"],
        "ranges": config["ParameterRanges"],
        "fixed hyperparameters": definition.get("StaticHyperParameters", {}),
        "data": definition["InputDataConfig"],
        "image": definition["AlgorithmSpecification"].get("TrainingImage"),
    }


def _counters(trials: list[Record]) -> Record:
    statuses = [one["TrainingJobStatus"] for one in trials]
    objectives = [one["ObjectiveStatus"] for one in trials]
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses.count("Completed"),
            "InProgress": sum(status in RUNNING for status in statuses),
            "RetryableError": 0,
            "NonRetryableError": statuses.count("Failed"),
            "Stopped": statuses.count("Stopped"),
        },
        "ObjectiveStatusCounters": {status: objectives.count(status) for status in ("Succeeded", "Pending", "Failed")},
    }


def _best(trials: list[Record], direction: str) -> Record | None:
    completed = [one for one in trials if one["TrainingJobStatus"] == "Completed"]
    choose = max if direction == "Maximize" else min
    return choose(completed, key=_value, default=None)


def _value(trial: Record) -> float:
    return trial.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value", float("-inf"))


_SORT_KEYS: dict[str, Callable[[int, Record], Any]] = {
    "Name": lambda _, trial: trial["TrainingJobName"],
    "CreationTime": lambda number, _: number,
    "Status": lambda _, trial: trial["TrainingJobStatus"],
    "FinalObjectiveMetricValue": lambda _, trial: _value(trial),
}

"""The supervisor of a local tuning job: it samples trials, runs some at a time, and stops those that fall behind.

``python -m launch.tuning.local FOLDER NAME GRACE_S`` runs the job of that name in the local client's folder. A trial is
a training job of the local client.
"""

import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import UserError
from classifier.host import num_cores
from launch.local.client import LocalClient, LocalLogs
from launch.local.records import Record, Records, now
from launch.local.tuning import KIND, TRIALS
from launch.platform.monitoring import TRAINING_JOBS, LogTail
from launch.tuning.ranges import canonical
from launch.tuning.request import TuningSpec, fixed_hyperparameters, max_epochs, read_spec
from launch.tuning.study import Study
from launch.tuning.trials import RUNNING, Trial, from_summary, reason_to_end, to_summary

# Starts the training job of a trial, from its name and its sampled hyperparameters.
StartTrial = Callable[[str, Mapping[str, str]], object]
_POLL_S = 0.3
_MAX_REASON = 1024
# Fields of a training definition that a CreateTrainingJob request does not have.
_OWN_FIELDS = ("DefinitionName", "TuningObjective", "HyperParameterRanges", "StaticHyperParameters")


@dataclass
class _RunningTrial:
    number: int
    name: str
    tail: LogTail
    values: list[float] = field(default_factory=list)
    is_pruned: bool = False


@dataclass
class LocalTuner:
    """Runs trials until a stopping criterion is met.

    Attributes:
        start: starts a trial.
        on_change: called with all trials, several times a second.
        is_stopped: whether the job is to be stopped.
    """

    client: LocalClient
    study: Study
    spec: TuningSpec
    start: StartTrial
    on_change: Callable[[Sequence[Trial]], object]
    is_stopped: Callable[[], bool] = lambda: False
    _running: list[_RunningTrial] = field(default_factory=list)

    def run(self) -> str | None:
        """Run the tuning job.

        Returns:
            Why it ended, or None if it was stopped: the running trials have been stopped then, and do not count.
        """
        started = time.monotonic()
        try:
            while not self.is_stopped():
                reason = self._step(time.monotonic() - started)
                if reason:
                    return reason
                time.sleep(_POLL_S)
        except BaseException:
            self._interrupt()
            raise
        self._interrupt()
        return None

    def stop_leftovers(self) -> int:
        """Stop the trials that a killed run has left running; return their number."""
        names = self.study.interrupt_running()
        for name in names:
            self._request_stop(name)
        for name in names:
            self._wait(name)
        return len(names)

    def _step(self, seconds: float) -> str | None:
        """Record what has changed and start trials; return why the tuning job is over, if it is."""
        self._collect()
        trials = self.study.trials()
        reason = reason_to_end(self.spec, trials, seconds)
        if reason:
            self._stop_all()
        else:
            self._start_more(trials)
        self.on_change(self.study.trials())
        return reason

    def _start_more(self, trials: Sequence[Trial]) -> None:
        while len(self._running) < self.spec.parallel and len(trials) < self.spec.num_jobs():
            new = self.study.ask()
            name = f"{self.spec.name}-{new.number + 1:03}-{secrets.token_hex(4)}"
            # Stored before the job exists: after a kill, an unknown job would run on.
            self.study.annotate(new.number, name=name, started=datetime.now(UTC).isoformat())
            tail = LogTail(LocalLogs(self.client.folder), TRAINING_JOBS, f"{name}/")
            self._running.append(_RunningTrial(new.number, name, tail))
            self.start(name, new.parameters)
            trials = self.study.trials()

    def _collect(self) -> None:
        for trial in list(self._running):
            description = self.client.describe_training_job(TrainingJobName=trial.name)
            self._report(trial)
            if description["TrainingJobStatus"] not in RUNNING:
                self._finish(trial, description)

    def _report(self, trial: _RunningTrial) -> None:
        """Report each epoch's objective, read from the log as on the platform; stop the trial if it falls behind."""
        for line in trial.tail.new_lines():
            for text in re.findall(self.spec.metric.regex, line):
                trial.values.append(float(text))
                if not isfinite(trial.values[-1]):
                    continue
                falls_behind = self.study.report(trial.number, len(trial.values), trial.values[-1])
                if falls_behind and not trial.is_pruned:
                    trial.is_pruned = True
                    self._request_stop(trial.name)

    def _finish(self, trial: _RunningTrial, description: Mapping[str, Any]) -> None:
        self._running.remove(trial)
        ended = description.get("TrainingEndTime") or datetime.now(UTC)
        started = description.get("TrainingStartTime") or ended
        self.study.annotate(trial.number, started=started.isoformat(), ended=ended.isoformat())
        status, value = description["TrainingJobStatus"], (trial.values or [None])[-1]
        if status == "Completed" and value is not None and isfinite(value):
            self.study.complete(trial.number, value)
        elif status == "Stopped":
            self.study.stop(trial.number)
        else:
            reason = description.get("FailureReason") or f"no finite {self.spec.objective} in its log"
            self.study.annotate(trial.number, failure=reason.splitlines()[0])
            self.study.fail(trial.number)

    def _stop_all(self) -> None:
        """Stop the running trials at the end of the tuning job; what they have reported counts."""
        for trial in self._running:
            self._request_stop(trial.name)
        for trial in list(self._running):
            self._report(trial)
            self._finish(trial, self._wait(trial.name))

    def _interrupt(self) -> None:
        for trial in self._running:
            self._request_stop(trial.name)
        for trial in self._running:
            self._wait(trial.name)
        self._running.clear()
        self.study.interrupt_running()
        self.on_change(self.study.trials())

    def _request_stop(self, name: str) -> None:
        # It may have ended in the meantime, or never have been created.
        with suppress(ClientError):
            self.client.stop_training_job(TrainingJobName=name)

    def _wait(self, name: str) -> Mapping[str, Any]:
        """Wait until a job has ended, and return its description; nothing if it never existed."""
        description: Mapping[str, Any] = {}
        with suppress(ClientError):
            while True:
                description = self.client.describe_training_job(TrainingJobName=name)
                if description["TrainingJobStatus"] not in RUNNING:
                    break
                time.sleep(_POLL_S)
        return description


@dataclass
class TuningSupervisor:
    """Runs one job from its request to its last trial, and records its status and its trials."""

    client: LocalClient
    name: str
    _shown: list[Record] = field(default_factory=list)

    @property
    def _records(self) -> Records:
        return Records(self.client.folder, KIND)

    def run(self) -> None:
        """Run the job. Any failure ends up in its record."""
        try:
            reason, trials = self._tune(self._records.read(self.name))
            if reason and not any(trial.status == "Completed" for trial in trials):
                failure = next((trial.failure for trial in trials if trial.failure), "none reported its objective")
                self._end("Failed", FailureReason=f"{reason}, and no trial has completed: {failure}"[:_MAX_REASON])
            else:
                self._end("Completed" if reason else "Stopped")
        except (UserError, ClientError) as error:
            self._end("Failed", FailureReason=f"ClientError: {error}"[:_MAX_REASON])
        except Exception as error:
            traceback.print_exc()
            self._end("Failed", FailureReason=f"InternalServerError: {error!r}"[:_MAX_REASON])

    def _tune(self, request: Record) -> tuple[str | None, list[Trial]]:
        spec = read_spec(request)
        epochs = max_epochs(spec.ranges, fixed_hyperparameters(request))
        study = Study.open(self._records.folder(self.name), spec, epochs)
        for parent in spec.warm_start:
            trials = self.client.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=parent)
            num = study.add_parent(parent, [from_summary(one) for one in trials["TrainingJobSummaries"]])
            print(f"{num} trials of {parent} are within these ranges", flush=True)
        tuner = LocalTuner(
            self.client,
            study,
            spec,
            partial(self._start, spec, request["TrainingJobDefinition"], request.get("Tags", [])),
            partial(self._show, spec),
            lambda: self._records.read(self.name)["HyperParameterTuningJobStatus"] == "Stopping",
        )
        tuner.stop_leftovers()
        return tuner.run(), study.trials()

    def _start(
        self,
        spec: TuningSpec,
        definition: Mapping[str, Any],
        tags: Sequence[Mapping[str, str]],
        name: str,
        parameters: Mapping[str, str],
    ) -> None:
        request = {**trial_request(spec, definition, name, parameters), "Tags": list(tags)}
        self.client.create_trial(self.name, **request)

    def _show(self, spec: TuningSpec, trials: Sequence[Trial]) -> None:
        arn = Records(self.client.folder, "training-job").arn
        shown = [{**to_summary(one, spec.metric), "TrainingJobArn": arn(one.name)} for one in trials]
        if shown != self._shown:
            self._shown = shown
            self._records.update(self.name, **{TRIALS: shown, "LastModifiedTime": now()})

    def _end(self, status: str, **fields: Any) -> None:
        ended = {"HyperParameterTuningJobStatus": status, "HyperParameterTuningEndTime": now()}
        self._records.update(self.name, **ended, LastModifiedTime=now(), **fields)


def trial_request(
    spec: TuningSpec, definition: Mapping[str, Any], name: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Build a trial's ``CreateTrainingJob`` request as the platform's tuner would, with its share of the cores.

    Args:
        definition: the tuning job's ``TrainingJobDefinition``.
        parameters: the sampled hyperparameters.
    """
    hosts = definition.get("ResourceConfig", {}).get("InstanceCount", 1)
    cores = str(cores_per_host(spec.parallel * hosts))
    given = {**definition.get("StaticHyperParameters", {}), **parameters}
    # Only the objective of a trial matters; converting the model for serving can take longer than a short training.
    extra = {"num_workers": cores, "optimize_for_cpu": "false", "_tuning_objective_metric": spec.objective}
    known = set(map(canonical, given))
    return {
        **{key: value for key, value in definition.items() if key not in _OWN_FIELDS},
        "TrainingJobName": name,
        "HyperParameters": {**{key: value for key, value in extra.items() if key not in known}, **given},
        "Environment": {"OMP_NUM_THREADS": cores, **definition.get("Environment", {})},
    }


def cores_per_host(num_hosts: int) -> int:
    """Return the share of the cores of each host of all running trials; too many OpenMP threads stall each other."""
    return max(1, num_cores() // num_hosts)


def main() -> None:
    """Run the supervisor of the job that the command line names."""
    root, name, grace_s = sys.argv[1:]
    TuningSupervisor(LocalClient(Path(root), grace_s=float(grace_s)), name).run()


if __name__ == "__main__":
    main()

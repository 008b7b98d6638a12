"""A tuning job on this machine: draws trials, runs some at a time, stops the hopeless, goes on after a kill."""

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from botocore.exceptions import ClientError

from launch.local.client import LocalClient
from launch.local.log_client import LocalLogs
from launch.logs import TRAINING_JOBS, LogTail
from launch.tuning.ends import reason_to_end
from launch.tuning.machine import stop_requests
from launch.tuning.spec import TuningSpec
from launch.tuning.study import Study
from launch.tuning.table import Watcher
from launch.tuning.trials import RUNNING, Trial

# A trial's name and hyperparameters → the request that trains it.
Request = Callable[[str, Mapping[str, str]], dict[str, Any]]

_POLL_S = 0.3


@dataclass
class _Job:
    """A trial's training, running."""

    number: int
    name: str
    tail: LogTail
    values: list[float] = field(default_factory=list)
    is_pruned: bool = False


@dataclass
class LocalTuner:
    """Runs trials until there are enough, or another end is reached."""

    client: LocalClient
    study: Study
    spec: TuningSpec
    request: Request
    watcher: Watcher
    _jobs: list[_Job] = field(default_factory=list)

    def run(self) -> str:
        """Returns why it ended. Trials that are interrupted, as by Ctrl-C, are stopped, and count for nothing."""
        began = time.monotonic()
        try:
            with stop_requests() as is_asked:
                while not (end := self._step(time.monotonic() - began)):
                    if is_asked():
                        raise KeyboardInterrupt
                    time.sleep(_POLL_S)
                return end
        except BaseException:
            self._interrupt()
            raise

    def _step(self, seconds: float) -> str | None:
        """Look at what runs, and start more; returns why it is over, if it is."""
        self._collect()
        trials = self.study.trials()
        end = reason_to_end(self.spec, trials, seconds)
        if end:
            self._stop_all()
        else:
            self._start_more(trials)
        self.watcher.show(self.study.trials())
        return end

    def stop_leftovers(self) -> int:
        """Stop what a run that was killed has left running; returns how many trials that were."""
        names = self.study.interrupt_running()
        for name in names:
            self._ask_to_stop(name)
        for name in names:
            self._wait(name)
        return len(names)

    def _start_more(self, trials: Sequence[Trial]) -> None:
        while len(self._jobs) < self.spec.parallel and len(trials) < self.spec.num_jobs():
            asked = self.study.ask()
            name = f"{self.spec.name}-{asked.number + 1:03}-{secrets.token_hex(4)}"
            # Noted before it is created: a job that nobody knows of would run on after a kill.
            self.study.note(asked.number, name=name, started=datetime.now(UTC).isoformat())
            tail = LogTail(LocalLogs(self.client.folder), TRAINING_JOBS, f"{name}/")
            self._jobs.append(_Job(asked.number, name, tail))
            self.client.create_training_job(**self.request(name, asked.parameters))
            trials = self.study.trials()

    def _collect(self) -> None:
        for job in list(self._jobs):
            description = self.client.describe_training_job(TrainingJobName=job.name)
            self._report(job)
            if description["TrainingJobStatus"] not in RUNNING:
                self._finish(job, description)

    def _report(self, job: _Job) -> None:
        """Tell the study each epoch's objective, read from the log as the platform does; stop the job if it says so."""
        for line in job.tail.new_lines():
            for text in re.findall(self.spec.metric.regex, line):
                job.values.append(float(text))
                if not isfinite(job.values[-1]):
                    continue
                is_hopeless = self.study.report(job.number, len(job.values), job.values[-1])
                if is_hopeless and not job.is_pruned:
                    job.is_pruned = True
                    self._ask_to_stop(job.name)

    def _finish(self, job: _Job, description: Mapping[str, Any]) -> None:
        self._jobs.remove(job)
        ended = description.get("TrainingEndTime") or datetime.now(UTC)
        started = description.get("TrainingStartTime") or ended
        self.study.note(job.number, started=started.isoformat(), ended=ended.isoformat())
        status, value = description["TrainingJobStatus"], (job.values or [None])[-1]
        if status == "Completed" and value is not None and isfinite(value):
            self.study.complete(job.number, value)
        elif status == "Stopped":
            self.study.stop(job.number)
        else:
            reason = description.get("FailureReason") or f"no finite {self.spec.objective} in its log"
            self.study.note(job.number, failure=reason.splitlines()[0])
            self.study.fail(job.number)

    def _stop_all(self) -> None:
        """The end is reached: those that still run count with what they have."""
        for job in self._jobs:
            self._ask_to_stop(job.name)
        for job in list(self._jobs):
            self._report(job)
            self._finish(job, self._wait(job.name))

    def _interrupt(self) -> None:
        for job in self._jobs:
            self._ask_to_stop(job.name)
        for job in self._jobs:
            self._wait(job.name)
        self._jobs.clear()
        self.study.interrupt_running()

    def _ask_to_stop(self, name: str) -> None:
        # It may have ended by itself, or never have been created.
        with suppress(ClientError):
            self.client.stop_training_job(TrainingJobName=name)

    def _wait(self, name: str) -> Mapping[str, Any]:
        description: Mapping[str, Any] = {}
        with suppress(ClientError):
            while (description := self.client.describe_training_job(TrainingJobName=name))[
                "TrainingJobStatus"
            ] in RUNNING:
                time.sleep(_POLL_S)
        return description

"""A tuning job on this machine: draws trials, runs some at a time, stops the hopeless, goes on after a kill."""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import ConfigError
from launch.local.client import DEFAULT_FOLDER, LocalClient, LocalLogs
from launch.platform.logs import TRAINING_JOBS, LogTail
from launch.terminal import command, print_status
from launch.training.request import TrainingSpec, training_request
from launch.tuning.locking import only_one, share_of_cores, stop_requests
from launch.tuning.ranges import canonical
from launch.tuning.request import tuning_request
from launch.tuning.results import shown, tell_results, write_results
from launch.tuning.spec import TuningSpec, max_epochs
from launch.tuning.stopping_criteria import reason_to_end
from launch.tuning.study import REQUEST, Study, inherit
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


@dataclass(frozen=True)
class LocalTuning:
    """``training`` has the channels as ``file://`` folders, the image, and the fixed hyperparameters.

    ``folder`` gets the study and the results; the trials are jobs of the local client's own folder, ``jobs``.
    """

    spec: TuningSpec
    training: TrainingSpec
    folder: Path
    jobs: Path

    def run(self) -> int:
        """Returns the exit code.

        Raises:
            UserError: the folder is another tuning's, or a trial can't be started.
            KeyboardInterrupt: it was interrupted; what there is has been written and told.
        """
        request = tuning_request(self.spec, self.training)
        with only_one(self.folder):
            study = Study.open(
                self.folder, self.spec, self._identity(), max_epochs(self.spec.ranges, self.training.hyperparameters)
            )
            (self.folder / REQUEST).write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
            watcher = Watcher(self.spec.metric, self.spec.ranges.names, self.spec.num_jobs())
            client = LocalClient(self.jobs)
            tuner = LocalTuner(client, study, self.spec, partial(trial_request, self.spec, self.training), watcher)
            self._prepare(study, tuner)
            try:
                end = tuner.run()
            except KeyboardInterrupt:
                self._leave(study)
                raise
            return self._conclude(study, end)

    def _prepare(self, study: Study, tuner: LocalTuner) -> None:
        for line in inherit(study, self.spec):
            print(f"warm start  {line}", flush=True)
        num = tuner.stop_leftovers()
        done = len(study.trials())
        if done or num:
            left = f"; {num} that were cut off count for nothing" if num else ""
            print(f"goes on     {done} of {self.spec.num_jobs()} trials are there already{left}", flush=True)

    def _identity(self) -> dict[str, Any]:
        """What makes one trial comparable with another."""
        return {
            "objective": self.spec.objective,
            "strategy": self.spec.strategy,
            "ranges": dict(self.spec.ranges.request),
            "fixed hyperparameters": dict(self.training.hyperparameters),
            "data": dict(self.training.channels),
            "image": self.training.image,
            # Where a run that was killed has left its trials.
            "--folder": str(self.jobs.resolve()),
        }

    def _leave(self, study: Study) -> None:
        trials = study.trials()
        done = f"{len(trials)} of {self.spec.num_jobs()} trials are done"
        print(f"\nstopped     {done}; those that ran were stopped, and count for nothing", flush=True)
        best, written = write_results(self.folder, self.spec, self.training.hyperparameters, trials)
        tell_results(best, written, self.spec)
        print_status("the same command goes on from there")

    def _conclude(self, study: Study, end: str) -> int:
        trials = study.trials()
        print(f"ended       {end}", flush=True)
        if study.num_interrupted:
            print(f"cut off     {study.num_interrupted} trials by interruptions; they count for nothing", flush=True)
        best, written = write_results(self.folder, self.spec, self.training.hyperparameters, trials)
        tell_results(best, written, self.spec)
        if best is None:
            reason = next((trial.failure for trial in trials if trial.failure), "none reported its objective")
            raise ConfigError(f"no trial has completed: {reason}")
        print(f"model       {shown(self.folder / 'artifacts' / best.name / 'output' / 'model.tar.gz')}", flush=True)
        folder = [] if self.jobs == DEFAULT_FOLDER else ["--folder", str(self.jobs)]
        print(f"next        {command('deploy', best.name, '--local', *folder)}", flush=True)
        return 0


def trial_request(spec: TuningSpec, training: TrainingSpec, name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """A trial's CreateTrainingJob request, as the platform's tuner would make it, with its share of the cores."""
    cores = str(share_of_cores(spec.parallel))
    given = {**training.hyperparameters, **parameters}
    # A trial is there for its objective; the conversion for serving would cost more than a short training.
    extra = {"num_workers": cores, "optimize_for_cpu": "false", "_tuning_objective_metric": spec.objective}
    known = set(map(canonical, given))
    hyperparameters = {**{key: value for key, value in extra.items() if key not in known}, **given}
    environment = {"OMP_NUM_THREADS": cores, **training.environment}
    return training_request(replace(training, job_name=name, hyperparameters=hyperparameters, environment=environment))

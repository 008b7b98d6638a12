"""Local tuning jobs: sample trials, run some at a time, stop those that fall behind, resume after interruptions.

A trial is a training job of the local client. One process at a time tunes in a folder.
"""

import fcntl
import json
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

from botocore.exceptions import ClientError

from classifier.errors import ConfigError
from classifier.host import num_cores
from launch.local.client import DEFAULT_FOLDER, LocalClient, LocalLogs
from launch.platform.monitoring import TRAINING_JOBS, LogTail
from launch.terminal import command, print_status
from launch.training.request import TrainingSpec, training_request
from launch.tuning.ranges import canonical
from launch.tuning.request import TuningSpec, max_epochs, tuning_request
from launch.tuning.results import display_path, report_results
from launch.tuning.study import REQUEST, Study, warm_start
from launch.tuning.table import TrialDisplay
from launch.tuning.trials import RUNNING, Trial, reason_to_end

# Builds the training request of a trial from its name and its sampled hyperparameters.
TrialRequest = Callable[[str, Mapping[str, str]], dict[str, Any]]
_POLL_S = 0.3


@dataclass
class _RunningTrial:
    number: int
    name: str
    tail: LogTail
    values: list[float] = field(default_factory=list)
    is_pruned: bool = False


@dataclass
class LocalTuner:
    """Runs trials until a stopping criterion is met."""

    client: LocalClient
    study: Study
    spec: TuningSpec
    request: TrialRequest
    display: TrialDisplay
    _running: list[_RunningTrial] = field(default_factory=list)

    def run(self) -> str:
        """Run the tuning job; return why it ended.

        Raises:
            KeyboardInterrupt: it was interrupted; running trials have been stopped, and do not count.
        """
        started = time.monotonic()
        try:
            with defer_interrupts() as is_interrupted:
                while not (reason := self._step(time.monotonic() - started)):
                    if is_interrupted():
                        raise KeyboardInterrupt
                    time.sleep(_POLL_S)
                return reason
        except BaseException:
            self._interrupt()
            raise

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
        self.display.show(self.study.trials())
        return reason

    def _start_more(self, trials: Sequence[Trial]) -> None:
        while len(self._running) < self.spec.parallel and len(trials) < self.spec.num_jobs():
            new = self.study.ask()
            name = f"{self.spec.name}-{new.number + 1:03}-{secrets.token_hex(4)}"
            # Stored before the job exists: after a kill, an unknown job would run on.
            self.study.annotate(new.number, name=name, started=datetime.now(UTC).isoformat())
            tail = LogTail(LocalLogs(self.client.folder), TRAINING_JOBS, f"{name}/")
            self._running.append(_RunningTrial(new.number, name, tail))
            self.client.create_training_job(**self.request(name, new.parameters))
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


@dataclass(frozen=True)
class LocalTuning:
    """A tuning job on this machine, from its start or resumption to its results.

    Attributes:
        training: what the trials have in common: ``file://`` channels, image, fixed hyperparameters.
        folder: gets the study and the results.
        jobs: the local client's folder, where the trials are training jobs.
    """

    spec: TuningSpec
    training: TrainingSpec
    folder: Path
    jobs: Path

    def run(self) -> int:
        """Run the tuning job; return the exit code.

        Raises:
            UserError: the folder belongs to another tuning job, or no trial has completed.
            KeyboardInterrupt: it was interrupted; the results so far have been written.
        """
        request = tuning_request(self.spec, self.training)
        with lock_folder(self.folder):
            epochs = max_epochs(self.spec.ranges, self.training.hyperparameters)
            study = Study.open(self.folder, self.spec, self._identity(), epochs)
            (self.folder / REQUEST).write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
            display = TrialDisplay(self.spec.metric, self.spec.ranges.names, self.spec.num_jobs())
            build_request = partial(trial_request, self.spec, self.training)
            tuner = LocalTuner(LocalClient(self.jobs), study, self.spec, build_request, display)
            self._prepare(study, tuner)
            try:
                reason = tuner.run()
            except KeyboardInterrupt:
                self._report_interruption(study)
                raise
            return self._conclude(study, reason)

    def _prepare(self, study: Study, tuner: LocalTuner) -> None:
        for line in warm_start(study, self.spec):
            print(f"warm start  {line}", flush=True)
        num_leftovers = tuner.stop_leftovers()
        num_ended = len(study.trials())
        if num_ended or num_leftovers:
            interrupted = f"; {num_leftovers} interrupted, which do not count" if num_leftovers else ""
            print(f"resuming    {num_ended} of {self.spec.num_jobs()} trials completed{interrupted}", flush=True)

    def _identity(self) -> dict[str, Any]:
        """Return what has to be the same in all runs, so that their trials are comparable."""
        return {
            "objective": self.spec.objective,
            "strategy": self.spec.strategy,
            "ranges": dict(self.spec.ranges.request),
            "fixed hyperparameters": dict(self.training.hyperparameters),
            "data": dict(self.training.channels),
            "image": self.training.image,
            # A killed run has left its trials there.
            "--folder": str(self.jobs.resolve()),
        }

    def _report_interruption(self, study: Study) -> None:
        trials = study.trials()
        completed = f"{len(trials)} of {self.spec.num_jobs()} trials completed"
        print(f"\nstopped     {completed}; the running ones were stopped and do not count", flush=True)
        report_results(self.folder, self.spec, self.training.hyperparameters, trials)
        print_status("run the same command again to resume")

    def _conclude(self, study: Study, reason: str) -> int:
        trials = study.trials()
        print(f"ended       {reason}", flush=True)
        if study.num_interrupted:
            print(f"interrupted {study.num_interrupted} trials, which do not count", flush=True)
        best = report_results(self.folder, self.spec, self.training.hyperparameters, trials)
        if best is None:
            failure = next((trial.failure for trial in trials if trial.failure), "none reported its objective")
            raise ConfigError(f"no trial has completed: {failure}")
        artifact = self.folder / "artifacts" / best.name / "output" / "model.tar.gz"
        print(f"model       {display_path(artifact)}", flush=True)
        folder = [] if self.jobs == DEFAULT_FOLDER else ["--folder", str(self.jobs)]
        print(f"next        {command('deploy', best.name, '--local', *folder)}", flush=True)
        return 0


def trial_request(spec: TuningSpec, training: TrainingSpec, name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Build a trial's ``CreateTrainingJob`` request as the platform's tuner would, with its share of the cores.

    Args:
        parameters: the sampled hyperparameters.
    """
    cores = str(cores_per_trial(spec.parallel))
    given = {**training.hyperparameters, **parameters}
    # Only the objective of a trial matters; converting the model for serving can take longer than a short training.
    extra = {"num_workers": cores, "optimize_for_cpu": "false", "_tuning_objective_metric": spec.objective}
    known = set(map(canonical, given))
    hyperparameters = {**{key: value for key, value in extra.items() if key not in known}, **given}
    environment = {"OMP_NUM_THREADS": cores, **training.environment}
    return training_request(replace(training, job_name=name, hyperparameters=hyperparameters, environment=environment))


def cores_per_trial(parallel: int) -> int:
    """Return each trial's share of the cores; oversubscribed OpenMP thread pools stall each other."""
    return max(1, num_cores() // parallel)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other tuning jobs out of a folder: they would take the running trials for leftovers, and stop them.

    Raises:
        ConfigError: another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tune.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another tune.py is running in {folder}: wait for it, or choose another --output"
            ) from None
        yield


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Record the first SIGINT or SIGTERM instead of raising; a second one raises KeyboardInterrupt at once.

    Yields:
        A function that returns whether a signal has arrived.
    """
    received: list[int] = []

    def record(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each in previous:
            signal.signal(each, signal.default_int_handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, record)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

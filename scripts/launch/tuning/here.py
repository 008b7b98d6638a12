"""A tuning on this machine from end to end: its folder, its study, its trials' requests, its results."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError
from launch.local.client import DEFAULT_FOLDER, LocalClient
from launch.options import say
from launch.platform import command
from launch.requests.training import TrainingSpec, training_request
from launch.requests.tuning import tuning_request
from launch.tuning.inheritance import REQUEST, inherit
from launch.tuning.local import LocalTuner
from launch.tuning.machine import only_one, share_of_cores
from launch.tuning.parameters import canonical
from launch.tuning.results import shown, tell_results, write_results
from launch.tuning.spec import TuningSpec, max_epochs
from launch.tuning.study import Study
from launch.tuning.table import Watcher


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
        say("the same command goes on from there")

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

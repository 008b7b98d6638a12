"""A tuning on AWS from end to end: its request, its trials as they come, its results."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import UserError
from launch.cloud import client
from launch.options import say
from launch.platform import command
from launch.prices import describe_hourly
from launch.requests.training import TrainingSpec
from launch.requests.tuning import tuning_request
from launch.training_job import check_places
from launch.tuning.remote import RemoteTuner
from launch.tuning.results import tell_results, write_results
from launch.tuning.spec import TuningSpec
from launch.tuning.table import Watcher


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

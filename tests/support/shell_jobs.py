"""Local training jobs whose program is a line of shell."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.local.client import LocalClient
from launch.training.request import TrainingSpec, training_request

PATIENCE_S = 60.0
_ENDED = ("Completed", "Failed", "Stopped")


class Jobs:
    """Starts local training jobs. In their scripts ``$base`` is the host's ``/opt/ml``.

    Call :meth:`close` at the end, so that no supervisor or host outlives the test.
    """

    def __init__(self, folder: Path, grace_s: float = 60.0, interrupt_after_s: float = 0) -> None:
        self.folder = folder
        self.client = LocalClient(folder / "sagemaker", grace_s=grace_s, interrupt_after_s=interrupt_after_s)

    def request(self, script: str, **changes: Any) -> dict[str, Any]:
        """Return the request of a job that runs ``script``; ``changes`` are fields of the training spec."""
        values = {
            "job_name": "job",
            "image": "local",
            "role": "arn:aws:iam::000000000000:role/local",
            "channels": {"train": (self.folder / "train").as_uri()},
            "output": (self.folder / "artifacts").as_uri(),
        }
        (self.folder / "train").mkdir(exist_ok=True)
        request = training_request(TrainingSpec(**{**values, **changes}))
        # In a file: an entry point is a single line of at most 256 characters.
        program = self.folder / f"{values['job_name']}-{uuid.uuid4().hex[:8]}.sh"
        program.write_text(f"base=$SAGEMAKER_BASE_DIR; {script}", encoding="utf-8")
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["sh", str(program)]
        return request

    def start(self, script: str, **changes: Any) -> None:
        self.client.create_training_job(**self.request(script, **changes))

    def describe(self, name: str = "job") -> dict[str, Any]:
        return self.client.describe_training_job(TrainingJobName=name)

    def wait(self, name: str = "job") -> dict[str, Any]:
        """Wait until the job has ended."""
        return self.wait_until(lambda one: one["TrainingJobStatus"] in _ENDED, name)

    def wait_until(self, done: Callable[[dict[str, Any]], bool], name: str = "job") -> dict[str, Any]:
        """Wait until the job's description satisfies ``done``."""
        end = time.monotonic() + PATIENCE_S
        while not done(record := self.describe(name)):
            assert time.monotonic() < end, record
            time.sleep(0.05)
        return record

    def wait_for(self, path: Path) -> None:
        """Wait until a file exists."""
        end = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert time.monotonic() < end, path
            time.sleep(0.05)

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        """Run a job to its end."""
        self.start(script, **changes)
        return self.wait()

    def base(self, host: str = "algo-1", name: str = "job") -> Path:
        return self.client.folder / "training-jobs" / name / host

    def close(self) -> None:
        """Stop the jobs that a failed test has left running."""
        running = self.client.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]
        for job in running:
            self.client.stop_training_job(TrainingJobName=job["TrainingJobName"])
        for job in running:
            self.wait(job["TrainingJobName"])

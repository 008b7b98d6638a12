"""Jobs of a local client whose program is a line of shell."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.local.client import LocalClient
from launch.training.request import TrainingSpec, training_request

PATIENCE_S = 60.0


class Jobs:
    """Starts jobs of a local client. In their scripts ``$base`` is the host's ``/opt/ml``."""

    def __init__(self, folder: Path, grace_s: float = 60.0) -> None:
        self.folder = folder
        self.client = LocalClient(folder / "sagemaker", grace_s=grace_s)

    def request(self, script: str, **changes: Any) -> dict[str, Any]:
        values = {
            "job_name": "job",
            "image": "local",
            "role": "arn:aws:iam::000000000000:role/local",
            "channels": {"train": (self.folder / "train").as_uri()},
            "output": (self.folder / "artifacts").as_uri(),
        }
        (self.folder / "train").mkdir(exist_ok=True)
        request = training_request(TrainingSpec(**{**values, **changes}))
        program = ["sh", "-c", f"base=$SAGEMAKER_BASE_DIR; {script}"]
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = program
        return request

    def start(self, script: str, **changes: Any) -> None:
        self.client.create_training_job(**self.request(script, **changes))

    def describe(self, name: str = "job") -> dict[str, Any]:
        return self.client.describe_training_job(TrainingJobName=name)

    def wait(self, name: str = "job") -> dict[str, Any]:
        return self.wait_until(lambda one: one["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), name)

    def wait_until(self, done: Callable[[dict[str, Any]], bool], name: str = "job") -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while not done(record := self.describe(name)):
            assert time.monotonic() < end, record
            time.sleep(0.05)
        return record

    def wait_for(self, path: Path) -> None:
        end = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert time.monotonic() < end, path
            time.sleep(0.05)

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        self.start(script, **changes)
        return self.wait()

    def base(self, host: str = "algo-1", name: str = "job") -> Path:
        return self.client.folder / "training-jobs" / name / host

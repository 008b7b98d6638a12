"""Training jobs as the platform runs them: a folder laid out like /opt/ml, the program, and its outputs."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from classifier.contract.paths import Paths
from classifier.train import main
from launch.local.opt_ml import lay_out

# The smallest training: a small network from scratch, on small images, for one epoch.
TINY = {
    "model": "squeezenet1_1",
    "pretrained": "false",
    "image_size": "32",
    "epochs": "1",
    "batch_size": "8",
    "optimize_for_cpu": "false",
}

# Real photos and pretrained weights: trains the head alone, in a few seconds.
FROZEN = {
    "model": "mobilenet_v2",
    "pretrained": "true",
    "freeze": "backbone",
    "image_size": "224",
    "augmentation": "flip",
    "lr": "0.003",
    "scheduler": "onecycle",
    "batch_size": "32",
    "epochs": "5",
}


@dataclass(frozen=True)
class Job:
    """A finished job."""

    paths: Paths
    exit_code: int
    log: str

    @property
    def failure(self) -> str | None:
        """The failure reason that the platform would show, if any."""
        return self.paths.failure.read_text(encoding="utf-8")[:1024] if self.paths.failure.exists() else None

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.paths.output_data / "metrics.json").read_text(encoding="utf-8"))

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.paths.model / "model.json").read_text(encoding="utf-8"))


class Platform:
    """Lays out jobs and runs ``train`` on them in this process, so that torch is imported once for all tests.

    Attributes:
        draws_plots: whether `train` draws its two plots, which takes longer than a small training.
    """

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.paths = Paths(base)
        self.draws_plots = False
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def lay_out(self, channels: Mapping[str, Path], hyperparameters: Mapping[str, str] | None = None) -> None:
        lay_out(self.paths.base, channels, {**TINY, **(hyperparameters or {})})

    def write_config(self, name: str, content: str) -> None:
        """Write a file of ``input/config`` with this content, valid or not."""
        (self.paths.config / name).write_text(content, encoding="utf-8")

    def run(self) -> Job:
        """Run the laid out job."""
        with self._monkeypatch.context() as patch:
            patch.setenv("SAGEMAKER_BASE_DIR", str(self.paths.base))
            if not self.draws_plots:
                patch.setattr("classifier.reporting.recording.Recorder._plot", lambda *_: None)
            exit_code = _run_main()
        captured = self._capfd.readouterr()
        return Job(self.paths, exit_code, captured.out + captured.err)

    def train(self, channels: Mapping[str, Path], **hyperparameters: str) -> Job:
        self.lay_out(channels, hyperparameters)
        return self.run()

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start the program as a process of its own; its log is its standard output."""
        environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(self.paths.base), **environment}
        command = [str(Path(sys.executable).with_name("train"))]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_shared(base: Path, channels: Mapping[str, Path], **hyperparameters: str) -> Job:
    """Run a job outside of a test, for a fixture of several tests."""
    lay_out(base, channels, {**TINY, **hyperparameters})
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(log), redirect_stderr(log):
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        exit_code = _run_main()
    return Job(Paths(base), exit_code, log.getvalue())


def _run_main() -> int:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return main([])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

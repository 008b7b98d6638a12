"""Profiler rules on real trainings with slow photos, slow steps or a stall."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classifier.callbacks import CallbackList, EpochResult, TrainingContext
from classifier.contract.config import Channel, TrainingConfig
from classifier.contract.findings import Finding, read_findings
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.profiling.profiler import profiled
from classifier.training.batches import Batch
from classifier.training.console import Console
from classifier.training.loop import Trainer
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.precision import Precision


class Slow(nn.Module):
    """A layer whose n-th call takes ``wait_s(n)`` longer."""

    def __init__(self, wait_s: Callable[[int], float]) -> None:
        super().__init__()
        self.layer, self._wait_s, self._calls = nn.Linear(8, 3), wait_s, 0

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self._wait_s(self._calls))
        self._calls += 1
        return self.layer(inputs)


def batches(count: int, wait_s: float) -> Iterator[Batch]:
    for _ in range(count):
        time.sleep(wait_s)
        yield Batch(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))


def train(folder: Path, *, reading_s: float = 0.0, step_s: Callable[[int], float] = lambda _: 0.0) -> Sequence[Finding]:
    """Profile 40 steps of the real training loop and return the findings."""
    parameters = Hyperparameters(profile=True, epochs=1)
    config = TrainingConfig(parameters, channels={"train": Channel.model_validate({})})
    module, precision, paths = Slow(step_s), Precision(torch.device("cpu"), "fp32"), Paths(folder)
    optimizer, criterion = build_optimizer(module, parameters), nn.CrossEntropyLoss()
    schedule = build_schedule(optimizer, parameters, 40)
    trainer = Trainer(module, module, optimizer, schedule, criterion, precision, None)
    context = TrainingContext(
        network=module, module=module, trained=module, criterion=criterion, optimizer=optimizer,
        device=precision.device, num_epochs=1, steps_per_epoch=40,
    )  # fmt: skip
    with profiled(config, paths, Console()) as profilers:
        callback = CallbackList(profilers, pytest.fail)
        callback.on_train_begin(context)
        callback.on_epoch_begin("train", 1)
        trainer.train_epoch(batches(40, reading_s), advance=lambda: None, callback=callback)
        callback.on_epoch_end(EpochResult(number=1, metrics={}, lr=0.0, seconds=0.0, is_best=True))
        callback.on_train_end()
    return read_findings(paths.output_data / "profiler_findings.json")


def outcome(findings: Sequence[Finding], rule: str) -> str:
    return next(finding.outcome for finding in findings if finding.rule == rule)


def test_dataloader_fires_if_reading_photos_is_slow(tmp_path: Path) -> None:
    findings = train(tmp_path, reading_s=0.03)
    assert outcome(findings, "Dataloader") == "fired"


def test_dataloader_is_quiet_if_steps_are_slow(tmp_path: Path) -> None:
    findings = train(tmp_path, step_s=lambda _: 0.03)
    assert outcome(findings, "Dataloader") == "quiet"
    assert outcome(findings, "MaxInitializationTime") == "quiet"


def test_step_outlier_fires_on_a_stalled_step(tmp_path: Path) -> None:
    findings = train(tmp_path, step_s=lambda number: 2.0 if number == 30 else 0.01)
    (finding,) = (finding for finding in findings if finding.rule == "StepOutlier")
    assert (finding.outcome, finding.step) == ("fired", 30)
    assert "most of it in forward" in finding.seen

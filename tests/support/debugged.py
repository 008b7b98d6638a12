"""Small trainings with the debugger, in a loop like that of the container, and tensors recorded from given values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classifier.callbacks import Callback, EpochResult, Mode, TrainingContext
from classifier.contract.config import HookConfig
from classifier.contract.findings import Finding, read_findings
from classifier.debugging.debugger import Debugger
from classifier.debugging.evaluation import RULES
from classifier.debugging.hook import MODES, close_hook, open_hook
from classifier.debugging.settings import DebuggerSettings
from classifier.debugging.tensors import open_trial

NUM_FEATURES, NUM_CLASSES = 8, 3


@dataclass
class Run:
    """Outputs of a finished training: folder of the tensors, folder of the findings, and log lines."""

    folder: Path
    output: Path
    lines: list[str] = field(default_factory=list)

    @property
    def findings(self) -> dict[str, Finding]:
        return {finding.rule: finding for finding in read_findings(self.output / "debugger_findings.json")}

    @cached_property
    def trial(self) -> Any:
        """The tensors, which are read once for all rules."""
        return open_trial(str(self.folder))


def points(
    number: int, *, seed: int = 0, share: tuple[float, ...] = (1, 1, 1), spread: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return linearly separable points around three centers, float32 (number, 8), and labels, int64 (number,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(share, dtype=torch.float32), number, replacement=True, generator=generator)
    centers = 2 * torch.eye(NUM_CLASSES, NUM_FEATURES)
    return centers[labels] + spread * torch.randn(number, NUM_FEATURES, generator=generator), labels


def network(*hidden: nn.Module, width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    activations = hidden or (nn.ReLU(),)
    layers: list[nn.Module] = []
    size = NUM_FEATURES
    for activation in activations:
        layers += [nn.Linear(size, width), activation]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, NUM_CLASSES))


def train(  # noqa: PLR0913 - a test sets only a few
    callback: Callback,
    module: nn.Module,
    *,
    lr: float = 0.05,
    epochs: int = 6,
    steps: int = 10,
    data: tuple[Tensor, Tensor] | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    change: Callable[[int], None] | None = None,
    momentum: float = 0.9,
) -> None:
    """Train ``steps`` batches per epoch and validate on two; ``change`` is called with a step's number before it."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer, criterion = torch.optim.SGD(parameters, lr=lr, momentum=momentum), nn.CrossEntropyLoss()
    inputs, labels = data or points(32 * steps)
    others = validation or points(64, seed=1)
    callback.on_train_begin(
        TrainingContext(
            network=module,
            module=module,
            trained=module,
            criterion=criterion,
            optimizer=optimizer,
            device=torch.device("cpu"),
            num_epochs=epochs,
            steps_per_epoch=steps,
        )
    )
    try:
        for epoch in range(epochs):
            callback.on_epoch_begin("train", epoch + 1)
            for step, (batch, truth) in enumerate(zip(inputs.chunk(steps), labels.chunk(steps), strict=True)):
                if change:
                    change(epoch * steps + step)
                with callback.phase("forward"):
                    logits = module(batch)
                    loss = criterion(logits, truth)
                callback.on_forward_end(logits.detach(), truth, loss.detach())
                optimizer.zero_grad()
                loss.backward()
                callback.on_backward_end()
                optimizer.step()
                callback.on_step_end()
            _evaluate(callback, module, epoch + 1, others)
    finally:
        callback.on_train_end()


@torch.inference_mode()
def _evaluate(callback: Callback, module: nn.Module, epoch: int, data: tuple[Tensor, Tensor]) -> None:
    callback.on_epoch_begin("validation", epoch)
    for batch, truth in zip(data[0].chunk(2), data[1].chunk(2), strict=True):
        with callback.phase("forward"):
            logits = module(batch)
        callback.on_forward_end(logits, truth, F.cross_entropy(logits, truth))
        callback.on_step_end()
    callback.on_epoch_end(EpochResult(number=epoch, metrics={}, lr=0.0, seconds=0.0, is_best=False))


def debugged(
    folder: Path, module: nn.Module, config: dict[str, Any] | None = None, stop: tuple[str, ...] = (), **options: Any
) -> Run:
    """Train with the debugger; ``config`` is as in ``debughookconfig.json``, by default the default collections."""
    run = Run(folder / "tensors", folder / "data")
    hook = HookConfig.model_validate(config) if config else None
    settings = DebuggerSettings(folder=run.folder, hook=hook, own_collections=hook is None, stop=stop)
    run.output.mkdir(parents=True)
    train(Debugger(settings, run.output, run.lines.append), module, **options)
    return run


def judge(run: Run, rule: str, **parameters: Any) -> Finding:
    """Return the finding of one rule, called step by step as smdebug does."""
    one = RULES[rule](run.trial, **parameters)
    for step in one.tensors.steps():
        one.invoke_at_step(step)
    one.close(ended=True)
    return one.finding()


def record(folder: Path, steps: Sequence[tuple[Mode, dict[str, Any]]]) -> Run:
    """Save given tensors: for each step its mode, and values by smdebug's tensor names."""
    names = {"losses": {}, "weights": {}, "gradients": {}}
    additions = {
        "update_ratios": "^update_ratio/",
        "activity": "^activity/",
        "logits": "Loss_input_",
        "inputs": "input_statistics/|hybridsequential",
    }
    names |= {name: {"include_regex": regex} for name, regex in additions.items()}
    collections = [
        {"CollectionName": name, "CollectionParameters": {"save_interval": "1", **values}}
        for name, values in names.items()
    ]
    hook = open_hook(folder / "tensors", None, {"HookParameters": {}, "CollectionConfigurations": collections})
    for mode, values in steps:
        hook.set_mode(MODES[mode])
        hook.on_step_begin()
        for name, value in values.items():
            hook.save(name, torch.as_tensor(np.asarray(value)))
        hook.on_step_end()
    close_hook(hook)
    return Run(folder / "tensors", folder / "data")


def record_losses(folder: Path, losses: Sequence[tuple[Mode, float]]) -> Run:
    """Save losses, one for each step."""
    return record(folder, [(mode, {"CrossEntropyLoss_output_0": loss}) for mode, loss in losses])

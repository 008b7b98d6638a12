"""Sees a training from inside: saves its tensors as smdebug does, and holds the rules against them as they come."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from classifier.callbacks import Callback, EpochResult, Mode, Phase, TrainingContext
from classifier.contract.findings import Finding, write_findings
from classifier.debugging.evaluation import Evaluation
from classifier.debugging.hook import Activations, TensorHook, close_hook, mode_of, open_hook
from classifier.debugging.library import ModeKeys
from classifier.debugging.series import read_series
from classifier.debugging.settings import Settings
from classifier.debugging.tensors import Tensors, open_trial
from classifier.errors import Stopped

_NOTHING = nullcontext()
# Rules are held against what was saved after every epoch, and within one after as many saved steps.
_STEPS_BETWEEN_VERDICTS = 50


class Debugger(Callback):
    """Names are smdebug's: ``ResNet_fc.weight``, ``gradient/ResNet_fc.weight``, ``CrossEntropyLoss_output_0``.

    ``update_ratio/ResNet_fc`` is ours: the norm of a step's change of a layer's weights over the norm of the weights;
    ``activity/relu_output_0`` the share of a ReLU's inputs that are positive, by channel.
    """

    def __init__(self, settings: Settings, output: Path, say: Callable[[str], None]) -> None:
        self._settings, self._output, self._say = settings, output, say
        self._hook: TensorHook | None = None
        self._evaluation: Evaluation | None = None
        self._before: dict[str, Tensor] = {}
        self._mode: Mode = "train"
        self._num_saved = 0

    def on_train_begin(self, context: TrainingContext) -> None:
        # Several ranks compute the same weights and gradients: the first one's are saved.
        if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
            return
        prefix = f"{type(context.network).__name__}_"
        self._loss = type(context.criterion).__name__
        self._class_names = context.class_names
        self._parameters = {
            prefix + name: parameter
            for name, parameter in context.network.named_parameters()
            if parameter.requires_grad
        }
        self._hook = open_hook(self._settings.folder, self._settings.tensorboard, self._settings.describe(context))
        self._activations = Activations(self._hook, context.network)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:  # noqa: ARG002 - the events' signature
        self._mode = mode
        if self._hook is not None:
            self._hook.set_mode(mode_of(mode))

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        return _Forward(self, self._hook) if name == "forward" and self._hook is not None else _NOTHING

    def begin_forward(self, hook: TensorHook) -> None:
        """Count a step; where it is one to save, save its weights and watch its forward pass."""
        # What is tested is not this network but the artifact, read back: only its losses can be seen.
        if not hook.on_step_begin() or self._mode == "test":
            return
        for name, parameter in self._parameters.items():
            hook.save(name, parameter)
        self._before = {
            ratio: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if parameter.ndim > 1 and self._mode == "train" and hook.wants(ratio := ratio_name(name))
        }
        self._activations.watch()

    def end_forward(self) -> None:
        self._activations.leave()

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        hook = self._hook
        if hook is not None and hook.saving:
            hook.save(f"{self._loss}_input_0", logits)
            hook.save(f"{self._loss}_input_1", labels)
            hook.save(f"{self._loss}_output_0", loss)

    def on_backward_end(self) -> None:
        hook = self._hook
        if hook is not None and hook.saving:
            for name, parameter in self._parameters.items():
                if parameter.grad is not None:
                    hook.save(f"gradient/{name}", parameter.grad)

    @torch.no_grad()
    def on_step_end(self) -> None:
        hook = self._hook
        if hook is None or not hook.saving:
            return
        if self._before:
            parameters = {ratio_name(name): parameter for name, parameter in self._parameters.items()}
            for ratio, before in self._before.items():
                change = torch.linalg.vector_norm(parameters[ratio] - before)
                hook.save(ratio, change / torch.linalg.vector_norm(before).clamp_min(1e-12))
            self._before = {}
        hook.on_step_end()
        self._num_saved += 1
        if self._mode == "train" and self._num_saved % _STEPS_BETWEEN_VERDICTS == 0:
            self._judge()

    def on_epoch_end(self, result: EpochResult) -> None:  # noqa: ARG002 - the events' signature
        self._judge()

    def on_test_end(self, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - the events' signature
        self._judge()

    def on_train_end(self) -> None:
        """Hold the rules against all, and write and tell what they found."""
        if self._hook is None:
            return
        self.end_forward()
        close_hook(self._hook)
        evaluation, self._hook = self._evaluate(self._hook), None
        if evaluation is None:
            self._say("debugger    nothing was saved: the save intervals are longer than the training")
            return
        findings = [with_names(finding, self._class_names) for finding in evaluation.finish()]
        write_outputs(self._output, evaluation.tensors, findings)
        for finding in findings:
            if finding.outcome == "fired":
                self._say(f"debugger    {tell(finding)}")
        self._say(f"debugger    {summarise(findings)}; tensors in {self._settings.folder}")

    def _judge(self) -> None:
        """
        Raises:
            Stopped: a rule fired that was to end the training.
        """
        evaluation = self._evaluate(self._hook) if self._hook is not None else None
        for finding in evaluation.advance() if evaluation else ():
            if finding.rule in self._settings.stop:
                raise Stopped(f"the rule {finding.rule}: {finding.seen}")

    def _evaluate(self, hook: TensorHook) -> Evaluation | None:
        """None while nothing has been saved."""
        if self._evaluation is None and hook.exported_collections:
            self._evaluation = Evaluation(open_trial(str(self._settings.folder)))
        return self._evaluation


def ratio_name(parameter: str) -> str:
    """``ResNet_fc.weight`` → ``update_ratio/ResNet_fc``, which is in no collection of weights."""
    return "update_ratio/" + parameter.removesuffix(".weight")


def with_names(finding: Finding, class_names: Sequence[str]) -> Finding:
    """Tensors know classes by their numbers; who trains knows them by their names."""

    def name(match: re.Match[str]) -> str:
        number = int(match[1])
        return repr(class_names[number]) if number < len(class_names) else match[0]

    return finding.model_copy(update={"seen": re.sub(r"(?:class )?number (\d+)", name, finding.seen)})


def tell(finding: Finding) -> str:
    where = "" if finding.step is None else f" at step {finding.step}"
    return f"{finding.rule}{where}: {finding.seen}. Try: {finding.advice}"


def summarise(findings: list[Finding]) -> str:
    counts = {
        outcome: sum(finding.outcome == outcome for finding in findings) for outcome in ("fired", "quiet", "skipped")
    }
    return (
        f"{len(findings)} rules: {counts['fired']} fired, {counts['quiet']} quiet, "
        f"{counts['skipped']} had nothing to look at"
    )


class _Forward:
    """Around a forward pass."""

    def __init__(self, debugger: Debugger, hook: TensorHook) -> None:
        self._debugger, self._hook = debugger, hook

    def __enter__(self) -> None:
        try:
            self._debugger.begin_forward(self._hook)
        except BaseException:
            self._debugger.end_forward()
            raise

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._debugger.end_forward()


_MODES = {"train": ModeKeys.TRAIN, "validation": ModeKeys.EVAL, "test": ModeKeys.PREDICT}


def write_outputs(folder: Path, tensors: Tensors, findings: Sequence[Finding]) -> None:
    """``debugger_findings.json``, ``debugger_series.json`` and ``debugger.json``."""
    write_findings(folder / "debugger_findings.json", findings)
    _write(folder / "debugger_series.json", read_series(tensors).as_json())
    _write(folder / "debugger.json", describe(tensors, findings))


def describe(tensors: Tensors, findings: Sequence[Finding]) -> dict[str, object]:
    """Where the tensors are, how many steps and tensors there are of each kind, and which rules fired."""
    collections = tensors.trial.collections()
    names = {name for step in tensors.steps() for name in tensors.names(step, regex=".*")}
    return {
        "tensors": str(tensors.trial.path),
        "steps": {name: len(tensors.steps(mode)) for name, mode in _MODES.items()},
        "collections": {
            name: number
            for name, one in sorted(collections.items())
            if (number := len(names.intersection(one.tensor_names)))
        },
        "rules": {
            outcome: [finding.rule for finding in findings if finding.outcome == outcome]
            for outcome in ("fired", "quiet", "skipped")
        },
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(_plain(content), indent=1) + "\n", encoding="utf-8")


def _plain(content: object) -> object:
    """JSON has no NaN: null stands for what is not finite."""
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content

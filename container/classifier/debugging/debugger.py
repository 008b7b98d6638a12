"""The debugger, a training callback that saves tensors as smdebug does and evaluates rules on them."""

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
from classifier.debugging.curves import read_curves
from classifier.debugging.evaluation import RuleEvaluator
from classifier.debugging.hook import MODES, Activations, TensorHook, close_hook, open_hook
from classifier.debugging.settings import DebuggerSettings
from classifier.debugging.tensors import Tensors, open_trial
from classifier.errors import Stopped

_NOTHING = nullcontext()
# Rules are evaluated after every epoch, and within an epoch after this many saved steps.
_EVALUATION_INTERVAL = 50
_STATE = "debugger.json"


class Debugger(Callback):
    """Saves tensors and evaluates the rules.

    Tensors have smdebug's names: ``ResNet_fc.weight``, ``gradient/ResNet_fc.weight``, ``CrossEntropyLoss_output_0``.
    Two kinds are additions: ``update_ratio/ResNet_fc``, the norm of a step's change of a layer's weights over the norm
    of the weights, and ``activity/relu_output_0``, the share of a ReLU's outputs that are positive, by channel.
    """

    def __init__(self, settings: DebuggerSettings, output: Path, log: Callable[[str], None]) -> None:
        self._settings, self._output, self._log = settings, output, log
        self._hook: TensorHook | None = None
        self._evaluator: RuleEvaluator | None = None
        self._before: dict[str, Tensor] = {}
        self._mode: Mode = "train"
        self._num_saved = 0
        self._steps_before_pass: dict[str, int] = {}

    def on_train_begin(self, context: TrainingContext) -> None:
        """Open the hook on rank 0, with the collections that the settings give for this training."""
        # All ranks have the same weights and gradients; only rank 0 saves them.
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
        steps = json.loads(context.state[_STATE]) if _STATE in context.state else None
        description = self._settings.describe(context)
        self._hook = open_hook(self._settings.folder, self._settings.tensorboard, description, steps)
        self._activations = Activations(self._hook, context.network)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:  # noqa: ARG002 - a callback's
        """Set smdebug's mode, under which the following steps are counted."""
        self._mode = mode
        if self._hook is not None:
            self._steps_before_pass = self._hook.steps()
            self._hook.set_mode(MODES[mode])

    def state(self) -> Mapping[str, bytes]:
        """Return the numbers of the last steps; those of a pass that would be repeated do not count."""
        if self._hook is None:
            return {}
        steps = self._hook.steps() if self._mode == "train" else self._steps_before_pass
        return {_STATE: json.dumps(steps).encode()}

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        """Return a context that counts a step and saves activations in the phase ``forward``; else an empty one."""
        return _Forward(self, self._hook) if name == "forward" and self._hook is not None else _NOTHING

    def begin_forward(self, hook: TensorHook) -> None:
        """Count a step; if it is to be saved, save the weights and register hooks for the forward pass."""
        # The test evaluates the artifact as read back, not this network: only its losses can be saved.
        if not hook.on_step_begin() or self._mode == "test":
            return
        for name, parameter in self._parameters.items():
            hook.save(name, parameter)
        self._before = {
            ratio: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if parameter.ndim > 1 and self._mode == "train" and hook.wants(ratio := ratio_name(name))
        }
        self._activations.register()

    def end_forward(self) -> None:
        """Remove the hooks of the forward pass."""
        self._activations.remove()

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Save logits, float32 (N, num_classes), labels, int64 (N,), and the mean loss of the batch."""
        hook = self._hook
        if hook is not None and hook.saving:
            hook.save(f"{self._loss}_input_0", logits)
            hook.save(f"{self._loss}_input_1", labels)
            hook.save(f"{self._loss}_output_0", loss)

    def on_backward_end(self) -> None:
        """Save the gradients of all trainable parameters."""
        hook = self._hook
        if hook is not None and hook.saving:
            for name, parameter in self._parameters.items():
                if parameter.grad is not None:
                    hook.save(f"gradient/{name}", parameter.grad)

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Save update ratios, close the step's file and, every 50 saved steps, evaluate the rules."""
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
        if self._mode == "train" and self._num_saved % _EVALUATION_INTERVAL == 0:
            self._evaluate()

    def on_epoch_end(self, result: EpochResult) -> None:  # noqa: ARG002 - a callback's
        """Evaluate the rules on the epoch's steps; raise ``Stopped`` if one of ``debug_stop`` fired."""
        self._mode = "train"
        self._evaluate()

    def on_test_end(self, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - a callback's
        """Evaluate the rules on the losses of the test."""
        self._evaluate()

    def on_train_end(self) -> None:
        """Evaluate the rules on all tensors, write the outputs and print the findings."""
        if self._hook is None:
            return
        self.end_forward()
        close_hook(self._hook)
        evaluator, self._hook = self._open_evaluator(self._hook), None
        if evaluator is None:
            self._log("debugger    no tensors saved: the save intervals are longer than the training")
            return
        findings = [with_class_names(finding, self._class_names) for finding in evaluator.finish()]
        write_outputs(self._output, evaluator.tensors, findings)
        for finding in findings:
            if finding.outcome == "fired":
                self._log(f"debugger    {format_finding(finding)}")
        self._log(f"debugger    {summarize(findings)}; tensors in {self._settings.folder}")

    def _evaluate(self) -> None:
        """Evaluate the rules on the steps saved since the last call.

        Raises:
            Stopped: a rule of ``debug_stop`` fired.
        """
        evaluator = self._open_evaluator(self._hook) if self._hook is not None else None
        for finding in evaluator.advance() if evaluator else ():
            if finding.rule in self._settings.stop:
                raise Stopped(f"the rule {finding.rule}: {finding.seen}")

    def _open_evaluator(self, hook: TensorHook) -> RuleEvaluator | None:
        """Return the evaluator; None as long as no tensor has been saved."""
        if self._evaluator is None and hook.exported_collections:
            self._evaluator = RuleEvaluator(open_trial(str(self._settings.folder)))
        return self._evaluator


def ratio_name(parameter: str) -> str:
    """Return the name of a weight's update ratio, e.g. ``update_ratio/ResNet_fc``; no weight collection matches it."""
    return "update_ratio/" + parameter.removesuffix(".weight")


def with_class_names(finding: Finding, class_names: Sequence[str]) -> Finding:
    """Return a finding with class numbers replaced by class names."""

    def name(match: re.Match[str]) -> str:
        number = int(match[1])
        return repr(class_names[number]) if number < len(class_names) else match[0]

    return finding.model_copy(update={"seen": re.sub(r"(?:class )?number (\d+)", name, finding.seen)})


def format_finding(finding: Finding) -> str:
    """Return a fired finding as one line of the log."""
    where = "" if finding.step is None else f" at step {finding.step}"
    return f"{finding.rule}{where}: {finding.seen}. Try: {finding.advice}"


def summarize(findings: Sequence[Finding]) -> str:
    """Return the number of rules by outcome, in words."""
    counts = {
        outcome: sum(finding.outcome == outcome for finding in findings) for outcome in ("fired", "quiet", "skipped")
    }
    return f"{len(findings)} rules: {counts['fired']} fired, {counts['quiet']} quiet, {counts['skipped']} skipped"


class _Forward:
    """Context of a forward pass."""

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


def write_outputs(folder: Path, tensors: Tensors, findings: Sequence[Finding]) -> None:
    """Write ``debugger_findings.json``, ``debugger_series.json`` and ``debugger.json`` to ``folder``."""
    write_findings(folder / "debugger_findings.json", findings)
    _write_json(folder / "debugger_series.json", read_curves(tensors).as_json())
    _write_json(folder / "debugger.json", describe(tensors, findings))


def describe(tensors: Tensors, findings: Sequence[Finding]) -> dict[str, object]:
    """Return the tensors' folder, the number of steps by mode and tensors by collection, and the rules by outcome."""
    collections = tensors.trial.collections()
    names = {name for step in tensors.steps() for name in tensors.names(step, regex=".*")}
    return {
        "tensors": str(tensors.trial.path),
        "steps": {name: len(tensors.steps(mode)) for name, mode in MODES.items()},
        "collections": {
            name: number
            for name, collection in sorted(collections.items())
            if (number := len(names.intersection(collection.tensor_names)))
        },
        "rules": {
            outcome: [finding.rule for finding in findings if finding.outcome == outcome]
            for outcome in ("fired", "quiet", "skipped")
        },
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(_without_nan(content), indent=1) + "\n", encoding="utf-8")


def _without_nan(content: object) -> object:
    """Replace numbers that are not finite with None, since JSON has no NaN."""
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return content

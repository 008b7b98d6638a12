"""The debugger, a training callback that saves tensors as smdebug does and evaluates rules on them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from classifier.callbacks import Callback, EpochResult, Mode, Phase, TrainingContext
from classifier.contract.findings import OUTCOMES, Diagnosis, Finding, write_findings
from classifier.debugging.curves import Curves
from classifier.debugging.evaluation import RuleEvaluator
from classifier.debugging.facts import MIN_RMS, Facts
from classifier.debugging.facts import collect as collect_facts
from classifier.debugging.hook import MODES, Activations, TensorHook, close_hook, norms, open_hook
from classifier.debugging.settings import DebuggerSettings
from classifier.debugging.tensors import Tensors, open_trial
from classifier.errors import Stopped

_NOTHING = nullcontext()
# Rules are also evaluated within an epoch, after this many saved steps.
_EVALUATION_INTERVAL = 50
# In long trainings, rules are evaluated at the ends of about so many epochs.
_MAX_EVALUATIONS = 10
_STATE = "debugger.json"
_NO_CALLBACK = Callback()


class Debugger(Callback):
    """Saves tensors and evaluates the rules.

    Tensors have smdebug's names: ``ResNet_fc.weight``, ``gradient/ResNet_fc.weight``, ``CrossEntropyLoss_output_0``.
    Two kinds are additions: ``update_ratio/ResNet_fc``, the norm of a step's change of a layer's weights over the norm
    of the weights, and ``activity/relu_output_0``, the share of a ReLU's outputs that are positive, by channel.
    """

    def __init__(
        self, settings: DebuggerSettings, output: Path, log: Callable[[str], None], others: Callback = _NO_CALLBACK
    ) -> None:
        """
        Args:
            output: the job's ``output/data``.
            others: callbacks that are informed of steps that saving makes longer.
        """
        self._settings, self._output, self._log, self._others = settings, output, log, others
        self._hook: TensorHook | None = None
        self._evaluator: RuleEvaluator | None = None
        self._before: dict[str, Tensor] = {}
        self._facts = Facts()
        self._confusion: Tensor | None = None
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
        self._parameters = {
            prefix + name: parameter
            for name, parameter in context.network.named_parameters()
            if parameter.requires_grad
        }
        steps = json.loads(context.state[_STATE]) if _STATE in context.state else None
        description = self._settings.describe(context)
        self._hook = open_hook(self._settings.folder, self._settings.tensorboard, description, steps)
        self._activations = Activations(self._hook, context.network, context.module)
        self._ratios = {
            ratio_name(name): parameter for name, parameter in self._parameters.items() if parameter.ndim > 1
        }
        self._facts = collect_facts(context, self._settings.hyperparameters, prefix, self._output)
        self._facts.write(self._settings.folder)
        self._interval = max(1, context.num_epochs // _MAX_EVALUATIONS)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:  # noqa: ARG002 - a callback's
        """Set smdebug's mode, under which the following steps are counted."""
        self._mode, self._confusion = mode, None
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
        hook.save_many(self._parameters)
        self._before = (
            {name: one.detach().clone() for name, one in self._ratios.items() if hook.wants(name)}
            if self._mode == "train"
            else {}
        )
        if self._activations.register() or self._before:
            self._others.on_step_disturbed()

    def end_forward(self) -> None:
        """Remove the hooks of the forward pass."""
        self._activations.remove()

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Save logits, float32 (N, num_classes), labels, int64 (N,), and the mean loss of the batch."""
        hook = self._hook
        if hook is not None and self._mode != "train":
            self._count(logits, labels)
        if hook is not None and hook.saving:
            hook.save(f"{self._loss}_input_0", logits)
            hook.save(f"{self._loss}_input_1", labels)
            hook.save(f"{self._loss}_output_0", loss)

    def on_backward_end(self) -> None:
        """Save the gradients of all trainable parameters."""
        hook = self._hook
        if hook is not None and hook.saving:
            gradients = {f"gradient/{name}": one.grad for name, one in self._parameters.items()}
            hook.save_many({name: gradient for name, gradient in gradients.items() if gradient is not None})

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Save update ratios, close the step's file and, every 50 saved steps, evaluate the rules."""
        hook = self._hook
        if hook is None or not hook.saving:
            return
        if self._before:
            self._save_ratios(hook)
        hook.on_step_end()
        self._num_saved += 1
        if self._mode == "train" and self._num_saved % _EVALUATION_INTERVAL == 0:
            self._evaluate()

    def _save_ratios(self, hook: TensorHook) -> None:
        """Save the update ratios, but not of tensors that are 0 by design: any step is large for them."""
        before = list(self._before.values())
        changes = norms([self._ratios[name] - old for name, old in self._before.items()])
        for name, change, size in zip(self._before, changes, norms(before), strict=True):
            if size > MIN_RMS * self._ratios[name].numel() ** 0.5:
                hook.save(name, change / size)
        self._before = {}

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Count an evaluated batch in the confusion matrix of the pass, int64 (C * C,)."""
        number = logits.shape[1]
        counts = torch.bincount(labels * number + logits.argmax(dim=1), minlength=number * number)
        self._confusion = counts if self._confusion is None else self._confusion + counts

    def _judge_on(self, channel: str) -> None:
        """Write the confusion matrix of the last pass to the facts."""
        if self._confusion is not None and self._hook is not None:
            counts = self._confusion.cpu()
            number = round(len(counts) ** 0.5)
            found = counts.nonzero().flatten().tolist()
            confusion = tuple((index // number, index % number, int(counts[index])) for index in found)
            self._facts = self._facts.model_copy(update={"confusion": confusion, "judged_on": channel})
            self._facts.write(self._settings.folder)

    def on_epoch_end(self, result: EpochResult) -> None:
        """Evaluate the rules every few epochs, and write what they found; raise ``Stopped`` for ``debug_stop``."""
        self._mode = "train"
        if result.is_best:
            self._judge_on("validation")
        if self._settings.stop or result.number % self._interval == 0:
            self._evaluate()

    def on_test_end(self, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - a callback's
        """Judge the confusion matrix of the test instead of validation's."""
        self._judge_on("test")

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
        evaluator.finish()
        report = self._write(evaluator)
        for line in report.lines():
            self._log(f"debugger    {line}")
        self._log(f"debugger    {summarize(report.findings)}; tensors in {self._settings.folder}")

    def _write(self, evaluator: RuleEvaluator) -> "Report":
        report = make_report(evaluator)
        report.write(self._output)
        return report

    def _evaluate(self) -> None:
        """Evaluate the rules on the steps saved since the last call.

        Raises:
            Stopped: a rule of ``debug_stop`` fired.
        """
        evaluator = self._open_evaluator(self._hook) if self._hook is not None else None
        if evaluator is None:
            return
        fired = evaluator.advance()
        # A training that is killed leaves these.
        self._write(evaluator)
        for finding in fired:
            if finding.rule in self._settings.stop:
                raise Stopped(f"the rule {finding.rule}: {finding.seen}")

    def _open_evaluator(self, hook: TensorHook) -> RuleEvaluator | None:
        """Return the evaluator; None as long as no tensor has been saved."""
        if self._evaluator is None and hook.exported_collections:
            self._evaluator = RuleEvaluator(open_trial(str(self._settings.folder)))
        if self._evaluator is not None:
            self._evaluator.tensors.remember(hook.take())
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


def summarize(findings: Sequence[Finding]) -> str:
    """Return the number of rules by outcome, in words."""
    counts = {outcome: sum(finding.outcome == outcome for finding in findings) for outcome in OUTCOMES}
    return f"{len(findings)} rules: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"


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


@dataclass(frozen=True)
class Report:
    """What the rules found: the diagnosis, the findings with class names, and the files for the page."""

    diagnosis: Diagnosis | None
    findings: Sequence[Finding]
    tensors: Tensors
    curves: Curves

    def lines(self) -> list[str]:
        """Return the diagnosis with its evidence, then the rules that fired, a line each."""
        lines = []
        if self.diagnosis is not None:
            advice = f". Try: {self.diagnosis.advice}" if self.diagnosis.advice else ""
            lines += [f"diagnosis: {self.diagnosis.title}{advice}"]
            lines += [f"  evidence: {one}" for one in self.diagnosis.evidence]
        names = [finding.rule for finding in self.findings if finding.is_alarm]
        hints = [finding.rule for finding in self.findings if finding.outcome == "fired" and not finding.is_alarm]
        lines += [f"fired: {', '.join(names)}"] if names else []
        lines += [f"hints: {', '.join(hints)}"] if hints else []
        damaged = len(self.tensors.damaged)
        return lines + ([f"{damaged} damaged files of tensors were skipped"] if damaged else [])

    def write(self, folder: Path) -> None:
        """Write ``debugger_findings.json``, ``debugger_series.json`` and ``debugger.json`` to ``folder``."""
        write_findings(folder / "debugger_findings.json", self.findings)
        _write_json(folder / "debugger_series.json", self.curves.as_json())
        diagnosis = None if self.diagnosis is None else self.diagnosis.model_dump()
        _write_json(folder / "debugger.json", {"diagnosis": diagnosis, **describe(self.tensors, self.findings)})


def make_report(evaluator: RuleEvaluator) -> Report:
    """Return what the rules found in the steps that they have judged so far."""
    names = evaluator.tensors.facts.class_names
    findings = [with_class_names(finding, names) for finding in evaluator.findings()]
    return Report(evaluator.diagnose(findings), findings, evaluator.tensors, evaluator.curves)


def describe(tensors: Tensors, findings: Sequence[Finding]) -> dict[str, object]:
    """Return the tensors' folder, the number of steps by mode and tensors by collection, and the rules by outcome."""
    collections = tensors.trial.collections()
    names = set().union(*tensors.trial.global_step_to_tensors_map.values())
    return {
        "tensors": str(tensors.trial.path),
        "steps": {name: len(tensors.steps(mode)) for name, mode in MODES.items()},
        "collections": {
            name: number
            for name, collection in sorted(collections.items())
            if (number := len(names.intersection(collection.tensor_names)))
        },
        "rules": {
            outcome: [finding.rule for finding in findings if finding.outcome == outcome] for outcome in OUTCOMES
        },
        "damaged": sorted(tensors.damaged),
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

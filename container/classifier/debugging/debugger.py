"""Sees a training from inside: saves its tensors as smdebug does, and holds the rules against them as they come."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from classifier.contract.findings import Finding
from classifier.debugging.activations import Activations
from classifier.debugging.evaluation import Evaluation
from classifier.debugging.hook import TensorHook, close_hook, mode_of, open_hook
from classifier.debugging.outputs import write_outputs
from classifier.debugging.settings import Settings
from classifier.debugging.tensors import open_trial
from classifier.errors import Stopped
from classifier.observer import Mode, Observer, Phase, Scene

_NOTHING = nullcontext()
# Rules are held against what was saved after every epoch, and within one after as many saved steps.
_STEPS_BETWEEN_VERDICTS = 50


class Debugger(Observer):
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

    def begin(self, scene: Scene) -> None:
        # Several ranks compute the same weights and gradients: the first one's are saved.
        if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
            return
        prefix = f"{type(scene.network).__name__}_"
        self._loss = type(scene.criterion).__name__
        self._class_names = scene.class_names
        self._parameters = {
            prefix + name: parameter for name, parameter in scene.network.named_parameters() if parameter.requires_grad
        }
        self._hook = open_hook(self._settings.folder, self._settings.tensorboard, self._settings.describe(scene))
        self._activations = Activations(self._hook, scene.network)

    def begin_epoch(self, mode: Mode, number: int) -> None:  # noqa: ARG002 - the events' signature
        self._mode = mode
        if self._hook is not None:
            self._hook.set_mode(mode_of(mode))

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        return _Forward(self, self._hook) if name == "forward" and self._hook is not None else _NOTHING

    def begin_forward(self, hook: TensorHook) -> None:
        """Count a step; where it is one to save, save its weights and watch its forward pass."""
        # What is tested is not this network but the artifact, read back: only its losses can be seen.
        if not hook.begin_step() or self._mode == "test":
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

    def see_outputs(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        hook = self._hook
        if hook is not None and hook.saving:
            hook.save(f"{self._loss}_input_0", logits)
            hook.save(f"{self._loss}_input_1", labels)
            hook.save(f"{self._loss}_output_0", loss)

    def see_gradients(self) -> None:
        hook = self._hook
        if hook is not None and hook.saving:
            for name, parameter in self._parameters.items():
                if parameter.grad is not None:
                    hook.save(f"gradient/{name}", parameter.grad)

    @torch.no_grad()
    def end_step(self) -> None:
        hook = self._hook
        if hook is None or not hook.saving:
            return
        if self._before:
            parameters = {ratio_name(name): parameter for name, parameter in self._parameters.items()}
            for ratio, before in self._before.items():
                change = torch.linalg.vector_norm(parameters[ratio] - before)
                hook.save(ratio, change / torch.linalg.vector_norm(before).clamp_min(1e-12))
            self._before = {}
        hook.end_step()
        self._num_saved += 1
        if self._mode == "train" and self._num_saved % _STEPS_BETWEEN_VERDICTS == 0:
            self._judge()

    def end_epoch(self, metrics: dict[str, float]) -> None:  # noqa: ARG002 - the events' signature
        self._judge()

    def end(self) -> None:
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

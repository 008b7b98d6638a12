"""AWS's 17 built-in rules on saved tensors and one more, evaluated on the steps of a trial as they are saved."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from classifier.contract.findings import OUTCOMES, Diagnosis, Finding, applicable, guarded
from classifier.debugging.curves import CurveReader, Curves, judge_losses
from classifier.debugging.diagnosis import diagnose, weigh
from classifier.debugging.rules.base import PlainRule
from classifier.debugging.rules.epochs import Overfit, Overtraining, ValidationAtChance
from classifier.debugging.rules.inputs import CheckInputImages
from classifier.debugging.rules.layers import (
    DeadRelu,
    PoorWeightInitialization,
    SaturatedActivation,
    VanishingGradient,
    WeightUpdateRatio,
)
from classifier.debugging.rules.losses import LossNotDecreasing
from classifier.debugging.rules.predictions import ClassImbalance, Confusion
from classifier.debugging.rules.values import (
    AllZero,
    ExplodingTensor,
    SimilarAcrossRuns,
    StalledTrainingRule,
    TensorVariance,
    UnchangedTensor,
)
from classifier.debugging.tensors import Tensors

RULES: dict[str, type[PlainRule]] = {
    rule.__name__: rule
    for rule in (
        LossNotDecreasing,
        Overfit,
        Overtraining,
        VanishingGradient,
        ExplodingTensor,
        PoorWeightInitialization,
        WeightUpdateRatio,
        AllZero,
        UnchangedTensor,
        TensorVariance,
        DeadRelu,
        SaturatedActivation,
        ClassImbalance,
        Confusion,
        CheckInputImages,
        ValidationAtChance,
        SimilarAcrossRuns,
        StalledTrainingRule,
    )
}


class RuleEvaluator:
    """All rules on one trial, with their default parameters unless ``parameters`` gives others by rule name."""

    def __init__(self, trial: Any, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """
        Raises:
            ConfigError: a rule's parameter is unknown or has a wrong value.
        """
        given = parameters or {}
        self.trial, self.tensors = trial, Tensors.of(trial)
        self._rules: list[PlainRule] = [rule(trial, **given.get(name, {})) for name, rule in RULES.items()]
        self._failed: dict[str, Finding] = {}
        self._last = -1
        self._curves = CurveReader(self.tensors)

    @property
    def curves(self) -> Curves:
        """The curves of the steps evaluated so far."""
        return self._curves.curves()

    def advance(self) -> Sequence[Finding]:
        """Evaluate the steps saved since the last call; return the findings of rules that fired for the first time."""
        return self._advance(ended=False)

    def finish(self) -> list[Finding]:
        """Evaluate the remaining steps; return the findings of all rules and of the loss curve, fired ones first."""
        self._advance(ended=True)
        return self.findings()

    def findings(self) -> list[Finding]:
        """Return the findings of all rules and of the loss curve so far, fired ones first, then by severity."""
        findings = [self._finding(rule) for rule in self._rules] + judge_losses(self.curves)
        findings = weigh(findings, self.tensors.facts, self.curves)
        given = self.tensors.facts.settings
        findings = [one.model_copy(update={"advice": applicable(one.advice, given)}) for one in findings]
        return sorted(findings, key=lambda one: (OUTCOMES.index(one.outcome), one.severity == "hint"))

    def diagnose(self, findings: Sequence[Finding]) -> Diagnosis | None:
        """Return the cause of the findings; None if none of them is an alarm."""
        return diagnose(findings, self.tensors.facts, self.curves)

    def _advance(self, *, ended: bool) -> list[Finding]:
        self.tensors.refresh()
        fired_before = {rule.name for rule in self._rules if rule.fired_at is not None}
        for step in self.tensors.steps():
            if step > self._last:
                for rule in self._rules:
                    self._guard(rule, lambda rule=rule, step=step: rule.invoke_at_step(step))
                self._curves.add(step)
                self._last = step
        for rule in self._rules:
            self._guard(rule, lambda rule=rule: rule.close(ended=ended))
        return [rule.finding() for rule in self._rules if rule.fired_at is not None and rule.name not in fired_before]

    def _guard(self, rule: PlainRule, call: Callable[[], bool]) -> None:
        """Call a rule unless it has failed before."""
        if rule.name not in self._failed and isinstance(failure := guarded(rule, call), Finding):
            self._failed[rule.name] = failure

    def _finding(self, rule: PlainRule) -> Finding:
        """A rule that fired before it failed keeps its finding."""
        return rule.finding() if rule.fired_at is not None else self._failed.get(rule.name) or rule.finding()

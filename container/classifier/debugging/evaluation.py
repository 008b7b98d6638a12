"""Rules, held against the steps of a trial as they come."""

from collections.abc import Mapping, Sequence
from typing import Any

from classifier.contract.findings import Finding
from classifier.debugging.curve import Curve, read_curve
from classifier.debugging.rules import RULES, PlainRule
from classifier.debugging.series import read_series
from classifier.debugging.tensors import Tensors


class Evaluation:
    """All rules with their defaults, and those of ``parameters`` with the values given."""

    def __init__(self, trial: Any, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """
        Raises:
            ConfigError: a rule's parameter is unknown or has a wrong value.
        """
        given = parameters or {}
        self.trial, self.tensors = trial, Tensors.of(trial)
        self._rules: list[PlainRule] = [rule(trial, **given.get(name, {})) for name, rule in RULES.items()]
        self._broken: dict[str, str] = {}
        self._last = -1

    def advance(self) -> Sequence[Finding]:
        """Look at the steps that were saved since the last call; return the findings of the rules that fired anew."""
        return self._advance(ended=False)

    def finish(self) -> list[Finding]:
        """Look at the rest, and say what each rule and the loss curve came to: what fired first."""
        self._advance(ended=True)
        findings = [self._finding(rule) for rule in self._rules]
        series = read_series(self.tensors)
        findings += read_curve(Curve(series.training, series.validation))
        return sorted(findings, key=lambda finding: ("fired", "quiet", "skipped").index(finding.outcome))

    def _advance(self, *, ended: bool) -> list[Finding]:
        self.trial.refresh_data()
        fired_before = {rule.name for rule in self._rules if rule.fired_at is not None}
        for step in self.tensors.steps():
            if step > self._last:
                for rule in self._rules:
                    self._guarded(rule, lambda rule=rule, step=step: rule.invoke_at_step(step))
                self._last = step
        for rule in self._rules:
            self._guarded(rule, lambda rule=rule: rule.close(ended=ended))
        return [rule.finding() for rule in self._rules if rule.fired_at is not None and rule.name not in fired_before]

    def _guarded(self, rule: PlainRule, call: Any) -> None:
        """A rule that fails on strange tensors is left out, and says so; the others go on."""
        if rule.name in self._broken:
            return
        try:
            call()
        except Exception as error:
            self._broken[rule.name] = f"failed: {type(error).__name__}: {error}"

    def _finding(self, rule: PlainRule) -> Finding:
        if rule.name in self._broken and rule.fired_at is None:
            return Finding(rule=rule.name, outcome="skipped", seen=self._broken[rule.name])
        return rule.finding()

"""Base classes of the debugger's rules: rules of smdebug that describe what they found in words."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from classifier.contract.findings import Finding, fired, quiet, skipped
from classifier.debugging.library import Rule, Trial
from classifier.debugging.tensors import Tensors
from classifier.errors import ConfigError


class Parameters(BaseModel):
    """A rule's parameters, by AWS's names. Strings are converted to the declared types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(Parameters):
    """Parameters of a rule whose tensors can be chosen: those that match the regex, else those of the collections."""

    collection_names: str = ""
    tensor_regex: str | None = None

    def collections(self, default: str) -> tuple[str, ...]:
        """Return the collections' names; ``default`` is a comma-separated list of them."""
        return tuple(name.strip() for name in (self.collection_names or default).split(",") if name.strip())


class PlainRule(Rule):
    """A rule with words for its findings.

    ``check_step`` gets each step in order; ``conclude`` covers what only all steps together show. Works under smdebug's
    ``invoke_rule`` and under :class:`RuleEvaluator`.
    """

    Options: ClassVar[type[Parameters]] = Parameters
    needs: ClassVar[str] = "tensors"  # what must have been saved
    meaning: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    severity: ClassVar[Literal["warning", "hint"]] = "warning"

    def __init__(self, base_trial: Trial, other_trials: Sequence[Trial] | None = None, **parameters: Any) -> None:
        """
        Raises:
            ConfigError: a parameter is unknown or has a wrong value.
        """
        super().__init__(base_trial, action_str="", other_trials=other_trials)
        self.tensors = Tensors.of(base_trial)
        self.parameters = self._parse(parameters)
        self.evaluated = False
        self.seen = ""
        self.shown_at: int | None = None  # the step that the rule judged, if that is not the current one
        self._verdicts: list[tuple[int, bool]] = []

    @property
    def name(self) -> str:
        """AWS's name of the rule."""
        return type(self).__name__

    @property
    def fired_at(self) -> int | None:
        """Global step at which the rule first fired."""
        return next((step for step, is_fired in self._verdicts if is_fired), None)

    def invoke_at_step(self, step: int) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return whether the rule's condition is met at a global step."""
        return self._note(step, lambda: self.check_step(step))

    def check_step(self, step: int) -> str | None:
        """Describe the problem at a global step; None if there is none.

        Sets ``evaluated`` whenever the tensors that the rule needs have been found.
        """
        raise NotImplementedError

    def close(self, *, ended: bool) -> bool:
        """Return whether all steps so far meet the condition. Called after each epoch; ``ended`` after the last."""
        steps = self.tensors.steps()
        return bool(steps) and self._note(steps[-1], lambda: self.conclude(ended=ended))

    def conclude(self, *, ended: bool) -> str | None:  # noqa: ARG002 - for overriding methods
        """Describe the problem of all steps so far; None if there is none. For rules that cannot judge single steps."""
        return None

    def finding(self) -> Finding:
        """Return the finding so far, with the history of the rule's verdicts."""
        times = [step for step, is_fired in self._verdicts if is_fired]
        if not times:
            return quiet(self) if self._verdicts else skipped(self, f"needs {self.needs}")
        finding = fired(self, self.seen, meaning=self.meaning, advice=self.advice, step=self._training_step(times[0]))
        resolved = next((step for step, is_fired in self._verdicts if not is_fired and step > times[-1]), None)
        return finding.model_copy(
            update={
                "outcome": "fired" if self._verdicts[-1][1] else "resolved",
                "severity": self.severity,
                "last_step": self._training_step(times[-1]),
                "resolved_step": None if resolved is None else self._training_step(resolved),
                "num_fired": len(times),
                "num_judged": len(self._verdicts),
            }
        )

    def _training_step(self, step: int) -> int:
        return self.tensors.training_step(step)

    def _note(self, step: int, call: Callable[[], str | None]) -> bool:
        """Call a part of the rule, and note its verdict if there was one; the latest description counts."""
        self.evaluated = False
        seen = call()
        if seen or self.evaluated:
            self._verdicts.append((step if self.shown_at is None else self.shown_at, seen is not None))
            self.seen = seen or self.seen
        return seen is not None

    def _parse(self, parameters: dict[str, Any]) -> Any:
        try:
            return self.Options(**parameters)
        except ValidationError as error:
            first = error.errors()[0]
            known = ", ".join(self.Options.model_fields) or "none"
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"rule {self.name}, parameter {name}={first['input']!r}: {first['msg']}; known are {known}"
            ) from None


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the names in words: ``a, b, c and 4 more``."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown

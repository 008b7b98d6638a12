"""A rule of smdebug that says in plain words what it saw."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from classifier.contract.findings import Finding
from classifier.debugging.library import Rule, Trial
from classifier.debugging.tensors import Tensors
from classifier.errors import ConfigError


class Parameters(BaseModel):
    """A rule's parameters by AWS's names; strings are read as what they stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(Parameters):
    """The tensors that a rule looks at: those that the regex finds, else the collections'."""

    collection_names: str = ""
    tensor_regex: str | None = None

    def collections(self, default: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in (self.collection_names or default).split(",") if name.strip())


class PlainRule(Rule):
    """``look`` is shown each step in order, and ``finish`` says what only the whole shows.

    Works under smdebug's ``invoke_rule`` as well as under :class:`Evaluation`.
    """

    Kind: ClassVar[type[Parameters]] = Parameters
    needs: ClassVar[str] = "tensors"  # what has to have been saved
    meaning: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def __init__(self, base_trial: Trial, other_trials: Sequence[Trial] | None = None, **parameters: Any) -> None:
        """
        Raises:
            ConfigError: a parameter is unknown or has a wrong value.
        """
        super().__init__(base_trial, action_str="", other_trials=other_trials)
        self.tensors = Tensors.of(base_trial)
        self.parameters = self._parse(parameters)
        self.evaluated = False
        self.fired_at: int | None = None
        self.seen = ""
        self.shown_at: int | None = None  # the step that a verdict is on, where that is not the step of the verdict

    @property
    def name(self) -> str:
        return type(self).__name__

    def invoke_at_step(self, step: int) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether the rule's condition is met at a global step."""
        return self._note(step, self.look(step))

    def look(self, step: int) -> str | None:
        """What is wrong at a step, in words; None where nothing is. Sets ``evaluated`` once it had something to see."""
        raise NotImplementedError

    def close(self, *, ended: bool) -> bool:
        """Whether the condition is met by all steps so far; after each epoch, and with ``ended`` after the last."""
        steps = self.tensors.steps()
        return bool(steps) and self._note(steps[-1], self.conclude(ended=ended))

    def conclude(self, *, ended: bool) -> str | None:  # noqa: ARG002 - for those that override it
        """What is wrong with all that was shown so far, for rules whose verdict waits for it."""
        return None

    def finding(self) -> Finding:
        if self.fired_at is not None:
            step = self.tensors.training_step(self.fired_at)
            return Finding(
                rule=self.name,
                outcome="fired",
                step=step,
                seen=self.seen,
                meaning=self.meaning,
                advice=self.advice,
            )
        if self.evaluated:
            return Finding(rule=self.name, outcome="quiet")
        return Finding(rule=self.name, outcome="skipped", seen=f"needs {self.needs}")

    def _note(self, step: int, seen: str | None) -> bool:
        if seen and self.fired_at is None:
            self.fired_at, self.seen = step if self.shown_at is None else self.shown_at, seen
        return seen is not None

    def _parse(self, parameters: dict[str, Any]) -> Any:
        try:
            return self.Kind(**parameters)
        except ValidationError as error:
            first = error.errors()[0]
            known = ", ".join(self.Kind.model_fields) or "none"
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"rule {self.name}, parameter {name}={first['input']!r}: {first['msg']}; known are {known}"
            ) from None


def listing(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown

"""Findings of the debugger's and the profiler's rules, and what the rules of both have in common."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

Result = TypeVar("Result")
Outcome = Literal["fired", "resolved", "quiet", "skipped"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Finding(BaseModel):
    """The outcome of one rule.

    ``fired``: its condition holds at the end; ``resolved``: it held earlier, and no longer does; ``quiet``: evaluated
    without objection; ``skipped``: could not be evaluated, for the reason in ``seen``.
    """

    model_config = ConfigDict(frozen=True)

    rule: str  # AWS's name
    outcome: Outcome
    severity: Literal["warning", "hint"] = "warning"  # a hint is a property of a training in which nothing is wrong
    step: int | None = None  # training step at which the rule first fired
    last_step: int | None = None  # training step at which it last fired
    resolved_step: int | None = None  # training step at which it was first quiet again, and stayed so
    num_fired: int = 0  # of ``num_judged`` evaluations
    num_judged: int = 0
    seen: str = ""  # what was measured, and where
    meaning: str = ""  # the usual cause or consequence
    advice: str = ""  # what to try next, in terms of the hyperparameters; parts are separated by semicolons

    @property
    def is_alarm(self) -> bool:
        """Whether the finding is shown in red: a warning whose condition holds at the end."""
        return self.outcome == "fired" and self.severity == "warning"

    def history(self) -> str:
        """Return the verdicts in words: ``fired 3 of 25 times, first at step 0, last at step 4, resolved at 5``."""
        if self.num_fired == 0:
            return ""
        parts = [f"fired {self.num_fired} of {self.num_judged} times"]
        parts += [f"first at step {self.step:,}"] if self.step is not None else []
        parts += [f"last at step {self.last_step:,}"] if self.last_step not in (None, self.step) else []
        parts += [f"resolved at step {self.resolved_step:,}"] if self.resolved_step is not None else []
        return ", ".join(parts)


class Diagnosis(BaseModel):
    """The cause of what the rules found, the most fundamental first.

    Attributes:
        cause: a short name, e.g. ``lr too high``.
        title: the cause in a sentence.
        evidence: what was measured.
        advice: what to change; nothing that the training's hyperparameters set already.
        rules: names of the rules whose findings it explains.
    """

    model_config = ConfigDict(frozen=True)

    cause: str
    title: str
    evidence: tuple[str, ...]
    advice: str
    rules: tuple[str, ...] = ()


class Rule(Protocol):
    """A rule of the debugger or the profiler. A rule that raises is skipped (see :func:`guarded`)."""

    @property
    def name(self) -> str:
        """AWS's name of the rule."""
        ...


def fired(rule: Rule, seen: str, *, meaning: str, advice: str, step: int | None = None) -> Finding:
    """Return the finding of a rule whose condition is met."""
    return Finding(rule=rule.name, outcome="fired", step=step, seen=seen, meaning=meaning, advice=advice)


def quiet(rule: Rule, seen: str = "") -> Finding:
    """Return the finding of a rule whose condition is not met."""
    return Finding(rule=rule.name, outcome="quiet", seen=seen)


def skipped(rule: Rule, reason: str) -> Finding:
    """Return the finding of a rule that could not be evaluated."""
    return Finding(rule=rule.name, outcome="skipped", seen=reason)


def guarded(rule: Rule, call: Callable[[], Result]) -> Result | Finding:
    """Return the result of a call into a rule; if it raises, a ``skipped`` finding with the error.

    One faulty rule hides neither the findings of the others nor the training.
    """
    try:
        return call()
    except Exception as error:
        return skipped(rule, f"failed: {type(error).__name__}: {error}")


def applicable(advice: str, hyperparameters: Mapping[str, Any]) -> str:
    """Return the parts of an advice without those that the hyperparameters set already.

    A part ``name=value`` is set if the hyperparameter has this value or, for a number, at least this one; any other
    part, if it is itself the name of something true.
    """
    parts = [part.strip() for part in advice.split(";") if part.strip()]
    return "; ".join(part for part in parts if not _is_set(part, hyperparameters))


def _is_set(part: str, hyperparameters: Mapping[str, Any]) -> bool:
    if hyperparameters.get(part) is True:
        return True
    match = re.match(r"(\w+)=([\w.:]+)", part)
    if match is None or match[1] not in hyperparameters:
        return False
    value = hyperparameters[match[1]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() == match[2].lower()
    return value >= float(match[2])


_LIST = TypeAdapter(list[Finding])


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """Write findings as a JSON list, and create the folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_LIST.dump_json(list(findings), indent=2) + b"\n")


def read_findings(path: Path) -> list[Finding]:
    """Read a file of :func:`write_findings`; an empty list if there is no such file."""
    return _LIST.validate_json(path.read_bytes()) if path.is_file() else []


# The names are needed where smdebug, which takes a second to import, is not loaded.
DEBUGGER_RULES = (
    "LossNotDecreasing",
    "Overfit",
    "Overtraining",
    "VanishingGradient",
    "ExplodingTensor",
    "PoorWeightInitialization",
    "WeightUpdateRatio",
    "AllZero",
    "UnchangedTensor",
    "TensorVariance",
    "DeadRelu",
    "SaturatedActivation",
    "ClassImbalance",
    "Confusion",
    "CheckInputImages",
    "ValidationAtChance",
    "SimilarAcrossRuns",
    "StalledTrainingRule",
)

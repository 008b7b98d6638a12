"""Findings of the debugger's and the profiler's rules, and what the rules of both have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

Result = TypeVar("Result")


class Finding(BaseModel):
    """The outcome of one rule.

    ``quiet``: evaluated without objection; ``skipped``: could not be evaluated, for the reason in ``seen``.
    """

    model_config = ConfigDict(frozen=True)

    rule: str  # AWS's name
    outcome: Literal["fired", "quiet", "skipped"]
    step: int | None = None  # training step at which the rule first fired
    seen: str = ""  # what was measured, and where
    meaning: str = ""  # the usual cause or consequence
    advice: str = ""  # what to try next, in terms of the hyperparameters


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
    "SimilarAcrossRuns",
    "StalledTrainingRule",
)

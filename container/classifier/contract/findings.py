"""What a rule saw in a training: told by the debugger and the profiler, shown in the log and the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter


class Finding(BaseModel):
    """One rule's verdict, in plain words.

    ``quiet``: evaluated, and all was well; ``skipped``: it could not be evaluated, and ``seen`` says why.
    """

    model_config = ConfigDict(frozen=True)

    rule: str  # AWS's name
    outcome: Literal["fired", "quiet", "skipped"]
    step: int | None = None  # of the first time that it fired
    seen: str = ""  # what was seen, where, with its figures
    meaning: str = ""  # what that usually means
    advice: str = ""  # what to try next, in terms of our hyperparameters


_LIST = TypeAdapter(list[Finding])


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_LIST.dump_json(list(findings), indent=2) + b"\n")


def read_findings(path: Path) -> list[Finding]:
    """An empty list where there is no such file."""
    return _LIST.validate_json(path.read_bytes()) if path.is_file() else []


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

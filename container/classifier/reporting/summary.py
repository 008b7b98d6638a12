"""``training.json``: what was trained, on what, and how it ended. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from classifier.vision.card import ClassLabel

SUMMARY_FILE = "training.json"
HISTORY_FILE = "history.csv"
# Why the training failed, where it did; like the platform's own file beside the folder, which a report does not reach.
FAILURE_FILE = "failure.txt"


class Summary(BaseModel):
    """What a report tells of a training besides its figures.

    ``photos``: a channel's number of photos of each class, in the order of ``classes``.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    job_name: str | None = None
    model: str
    pretrained: str  # where the weights came from
    channels: tuple[str, ...] = ()
    classes: tuple[str, ...]
    photos: dict[str, tuple[int, ...]] = {}
    data_fingerprint: str = ""
    hyperparameters: dict[str, Any] = {}
    changed: tuple[str, ...] = ()  # hyperparameters that are not at their defaults
    device: str = ""
    versions: dict[str, str] = {}
    started: str = ""  # ISO 8601, UTC
    duration_s: float = 0.0
    num_epochs: int = 0  # that were trained
    best_epoch: int | None = None
    judged_on: str = "validation"  # the channel of the confusion matrix
    metrics: dict[str, float] = {}
    ended: str = ""  # why, when it was not after the last epoch

    @classmethod
    def read(cls, path: Path) -> "Summary":
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def display_names(classes: Sequence[ClassLabel]) -> tuple[str, ...]:
    """Class names; the folders' names where two classes have the same."""
    names = [item.class_name for item in classes]
    return tuple(item.folder if names.count(item.class_name) > 1 else item.class_name for item in classes)


def changed(hyperparameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in hyperparameters.items() if value != defaults.get(name))

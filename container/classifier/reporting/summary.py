"""``training.json``: what was trained, on what, and how it ended. Imports no torch."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from classifier.contract.findings import Finding, read_findings
from classifier.errors import ConfigError
from classifier.vision.manifest import ClassLabel

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


PAGE_FILE = "report.html"
_PLACES = ("", "output/data", "data")


def has_record(path: Path) -> bool:
    """Whether a training came so far that there is something to show."""
    return (path / SUMMARY_FILE).is_file() or (path / HISTORY_FILE).is_file()


@dataclass(frozen=True)
class Folder:
    """``output/data`` of a job."""

    path: Path

    @classmethod
    def find(cls, path: Path) -> "Folder":
        """The folder itself, or that of the job which lies in it.

        Raises:
            ConfigError: neither holds what a training leaves.
        """
        for place in _PLACES:
            if has_record(path / place):
                return cls(path / place)
        raise ConfigError(
            f"{path} holds neither {SUMMARY_FILE} nor {HISTORY_FILE}: name a job's output/data, or the job's own folder"
        )

    def summary(self) -> Summary | None:
        path = self.path / SUMMARY_FILE
        return Summary.read(path) if path.is_file() else None

    def failure(self) -> str | None:
        path = self.path / FAILURE_FILE
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def json(self, name: str) -> Any:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def rows(self, name: str) -> list[dict[str, str]]:
        """A CSV file with a header."""
        lines = self.lines(name)
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]

    def lines(self, name: str) -> list[list[str]]:
        path = self.path / name
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [line for line in csv.reader(file) if line]

    def findings(self, name: str) -> list[Finding] | None:
        """None where nobody looked."""
        path = self.path / name
        return read_findings(path) if path.is_file() else None

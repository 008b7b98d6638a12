"""Output files of a training: ``training.json``, which summarizes it, and readers of the others. Imports no torch."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from classifier.contract.findings import Finding, read_findings
from classifier.errors import ConfigError
from classifier.vision.calibration import Calibration
from classifier.vision.manifest import ClassLabel

SUMMARY_FILE = "training.json"
HISTORY_FILE = "history.csv"
PAGE_FILE = "report.html"
# A copy of the platform's failure file, which is outside the folder that a report is built from.
FAILURE_FILE = "failure.txt"

# Where output/data may be, relative to the folder given.
_SUBFOLDERS = ("", "output/data", "data")


class Summary(BaseModel):
    """What was trained, on which data, and with which result.

    Attributes:
        pretrained: source of the initial weights.
        photos: number of photos per class for each channel, in the order of ``classes``.
        changed: names of the hyperparameters that differ from their defaults.
        started: ISO 8601, UTC.
        num_epochs: completed epochs.
        judged_on: channel of the final metrics and the confusion matrix.
        calibration_errors: expected calibration errors of ``judged_on``, uncalibrated and calibrated.
        ended: why the training ended before its last epoch, or an empty string.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    job_name: str | None = None
    model: str
    pretrained: str
    channels: tuple[str, ...] = ()
    classes: tuple[str, ...]
    photos: dict[str, tuple[int, ...]] = {}
    data_fingerprint: str = ""
    hyperparameters: dict[str, Any] = {}
    changed: tuple[str, ...] = ()
    device: str = ""
    versions: dict[str, str] = {}
    started: str = ""
    duration_s: float = 0.0
    num_epochs: int = 0
    best_epoch: int | None = None
    judged_on: str = "validation"
    metrics: dict[str, float] = {}
    calibration: Calibration | None = None
    calibration_errors: tuple[float, float] | None = None
    ended: str = ""

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """Read a summary file."""
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write the summary, creating its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def display_names(classes: Sequence[ClassLabel]) -> tuple[str, ...]:
    """Return the class names, or the folder names of classes that share one."""
    names = [item.class_name for item in classes]
    return tuple(item.folder if names.count(item.class_name) > 1 else item.class_name for item in classes)


def changed(hyperparameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the hyperparameters that differ from their defaults."""
    return tuple(name for name, value in hyperparameters.items() if value != defaults.get(name))


def has_record(path: Path) -> bool:
    """Whether a folder contains enough output of a training for a report."""
    return (path / SUMMARY_FILE).is_file() or (path / HISTORY_FILE).is_file()


@dataclass(frozen=True)
class OutputFolder:
    """Reader of a job's ``output/data``, in which any file may be missing."""

    path: Path

    @classmethod
    def find(cls, path: Path) -> "OutputFolder":
        """Find ``output/data`` in a job's folder, or take the folder itself.

        Raises:
            ConfigError: neither contains output of a training.
        """
        for subfolder in _SUBFOLDERS:
            if has_record(path / subfolder):
                return cls(path / subfolder)
        raise ConfigError(
            f"{path} contains neither {SUMMARY_FILE} nor {HISTORY_FILE}: pass a job's output/data, or the job's folder"
        )

    def summary(self) -> Summary | None:
        """Read the summary; None if there is none."""
        path = self.path / SUMMARY_FILE
        return Summary.read(path) if path.is_file() else None

    def failure(self) -> str | None:
        """Read the reason of the failure; None if the training did not fail."""
        path = self.path / FAILURE_FILE
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def json(self, name: str) -> Any:
        """Read a JSON file; None if there is no such file."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def rows(self, name: str) -> list[dict[str, str]]:
        """Read a CSV file with a header as one dict per row; empty if there is no such file."""
        lines = self.lines(name)
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]

    def lines(self, name: str) -> list[list[str]]:
        """Read a CSV file as one list per row, header included; empty if there is no such file."""
        path = self.path / name
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [line for line in csv.reader(file) if line]

    def findings(self, name: str) -> list[Finding] | None:
        """Read the findings of the debugger or the profiler; None if it was not enabled."""
        path = self.path / name
        return read_findings(path) if path.is_file() else None

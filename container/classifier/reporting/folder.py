"""The files that a page is made of. One that is not there is None, or an empty list. Imports no torch."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.contract.findings import Finding, read_findings
from classifier.errors import ConfigError
from classifier.reporting.summary import FAILURE_FILE, HISTORY_FILE, SUMMARY_FILE, Summary

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

"""What the debugger leaves in ``output/data``: findings, the curves behind them, and what was saved."""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from classifier.contract.findings import Finding, write_findings
from classifier.debugging.library import ModeKeys
from classifier.debugging.series import read_series
from classifier.debugging.tensors import Tensors

_MODES = {"train": ModeKeys.TRAIN, "validation": ModeKeys.EVAL, "test": ModeKeys.PREDICT}


def write_outputs(folder: Path, tensors: Tensors, findings: Sequence[Finding]) -> None:
    """``debugger_findings.json``, ``debugger_series.json`` and ``debugger.json``."""
    write_findings(folder / "debugger_findings.json", findings)
    _write(folder / "debugger_series.json", read_series(tensors).as_json())
    _write(folder / "debugger.json", describe(tensors, findings))


def describe(tensors: Tensors, findings: Sequence[Finding]) -> dict[str, object]:
    """Where the tensors are, how many steps and tensors there are of each kind, and which rules fired."""
    collections = tensors.trial.collections()
    names = {name for step in tensors.steps() for name in tensors.names(step, regex=".*")}
    return {
        "tensors": str(tensors.trial.path),
        "steps": {name: len(tensors.steps(mode)) for name, mode in _MODES.items()},
        "collections": {
            name: number
            for name, one in sorted(collections.items())
            if (number := len(names.intersection(one.tensor_names)))
        },
        "rules": {
            outcome: [finding.rule for finding in findings if finding.outcome == outcome]
            for outcome in ("fired", "quiet", "skipped")
        },
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(_plain(content), indent=1) + "\n", encoding="utf-8")


def _plain(content: object) -> object:
    """JSON has no NaN: null stands for what is not finite."""
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content

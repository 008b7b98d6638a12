"""Warm start on this machine: what earlier tunings came to, read from the folders that they left."""

import csv
import json
from pathlib import Path

from classifier.errors import ConfigError
from launch.tuning.spec import TuningSpec
from launch.tuning.study import Study
from launch.tuning.trials import COLUMNS, Trial

REQUEST = "request.json"


def inherit(study: Study, spec: TuningSpec) -> list[str]:
    """Tell the study of the trials of each of ``spec.warm_start``; returns a line for each.

    Raises:
        ConfigError: a folder holds no tuning, or one with another objective.
    """
    return [_inherit_one(study, spec, Path(parent)) for parent in spec.warm_start]


def _inherit_one(study: Study, spec: TuningSpec, parent: Path) -> str:
    if not (parent / "trials.csv").is_file() or not (parent / REQUEST).is_file():
        raise ConfigError(f"--warm-start {parent}: no tuning has ended there: name the --output of one")
    request = json.loads((parent / REQUEST).read_text(encoding="utf-8"))
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    if objective != spec.objective:
        raise ConfigError(f"--warm-start {parent}: its objective is {objective}, not {spec.objective}: give the same")
    trials = read_csv(parent / "trials.csv")
    num = study.inherit(trials, str(parent.resolve()))
    return f"{num} of {len(trials)} trials of {parent} lie in these ranges"


def read_csv(path: Path) -> list[Trial]:
    """The names, statuses, parameters and objectives of a table that :func:`trials.write_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Trial(
                name=row["TrainingJobName"],
                status=row["TrainingJobStatus"],
                parameters={name: value for name, value in row.items() if name not in COLUMNS},
                objective=float(row["FinalObjectiveValue"]) if row["FinalObjectiveValue"] else None,
            )
            for row in csv.DictReader(file)
        ]

"""A tuning job on this machine: an Optuna study in a SQLite file, which outlives the process.

A trial that was running when the process died is marked failed and interrupted; it counts for nothing.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from classifier.errors import ConfigError
from launch.tuning.ranges import Ranges
from launch.tuning.search_space import distributions, from_hyperparameters, grid, to_hyperparameters
from launch.tuning.spec import TuningSpec
from launch.tuning.trials import COLUMNS, Trial

_STATUS = {
    TrialState.RUNNING: "InProgress",
    TrialState.COMPLETE: "Completed",
    TrialState.PRUNED: "Stopped",
    TrialState.FAIL: "Failed",
}
_FILE = "study.db"


@dataclass(frozen=True)
class Asked:
    """A trial to run: its number in the study, from 0, and the hyperparameters that were drawn for it."""

    number: int
    parameters: Mapping[str, str]


class Study:
    """Trials drawn, reported and kept."""

    def __init__(self, study: optuna.Study, spec: TuningSpec) -> None:
        self._study = study
        self._spec = spec
        self._asked: dict[int, optuna.Trial] = {}

    @classmethod
    def open(cls, folder: Path, spec: TuningSpec, identity: Mapping[str, Any], max_epochs: int) -> "Study":
        """The folder's study, or a new one. ``identity`` is what may not change from one run to the next.

        Raises:
            ConfigError: the folder's study is of something else, or its file is no study.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{folder / _FILE}"
        direction = "maximize" if spec.metric.direction == "Maximize" else "minimize"
        pruner = _pruner(spec, max_epochs)
        try:
            study = optuna.create_study(
                storage=storage, study_name="tuning", direction=direction, load_if_exists=True, pruner=pruner
            )
        except Exception as error:  # SQLAlchemy's and Optuna's own, of many kinds
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{folder / _FILE} can't be used: {reason}: name another --output") from None
        # Another seed after each resumption, or the same values would be drawn again.
        study.sampler = _sampler(spec, len(study.get_trials(deepcopy=False)))
        _check_identity(folder, study, json.loads(json.dumps(identity)))
        return cls(study, spec)

    def ask(self) -> Asked:
        """The next trial's hyperparameters."""
        if self._spec.strategy == "grid":
            self._study.enqueue_trial(self._next_point())
        trial = self._study.ask(distributions(self._spec.ranges))
        self._asked[trial.number] = trial
        return Asked(trial.number, to_hyperparameters(self._spec.ranges, trial.params))

    def note(self, number: int, **facts: str) -> None:
        """Keep facts of a running trial: its job's ``name``, when it ``started`` and ``ended``, its ``failure``."""
        for key, value in facts.items():
            self._asked[number].set_user_attr(key, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """The objective after an epoch, from 1; returns whether the trial should be stopped."""
        self._asked[number].report(value, epoch)
        return self._asked[number].should_prune()

    def complete(self, number: int, value: float) -> None:
        self._study.tell(self._asked.pop(number), value)

    def stop(self, number: int) -> None:
        """Stopped early; its last reported value counts."""
        self._study.tell(self._asked.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        self._study.tell(self._asked.pop(number), state=TrialState.FAIL)

    def interrupt_running(self) -> list[str]:
        """Trials that run, or were running when a process died, count for nothing; returns their jobs' names."""
        leftovers = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for frozen in leftovers:
            trial = optuna.Trial(self._study, frozen._trial_id)
            trial.set_user_attr("interrupted", "yes")
            self._study.tell(frozen.number, state=TrialState.FAIL)
        return [frozen.user_attrs["name"] for frozen in leftovers if "name" in frozen.user_attrs]

    def trials(self) -> list[Trial]:
        """All that count, in the order in which they were drawn."""
        return [self._trial(frozen) for frozen in self._frozen()]

    @property
    def num_interrupted(self) -> int:
        return sum("interrupted" in frozen.user_attrs for frozen in self._study.get_trials(deepcopy=False))

    def inherit(self, trials: list[Trial], parent: str) -> int:
        """Let the sampler know what an earlier tuning job came to; returns how many of its trials fit these ranges."""
        seen = {frozen.user_attrs.get("parent") for frozen in self._study.get_trials(deepcopy=False)}
        fitting = [(trial, drawn) for trial in trials if (drawn := _drawn(self._spec.ranges, trial)) is not None]
        if parent not in seen:
            for trial, drawn in fitting:
                self._study.add_trial(
                    optuna.create_trial(
                        params=drawn,
                        distributions=distributions(self._spec.ranges),
                        value=trial.objective,
                        user_attrs={"parent": parent},
                    )
                )
        return len(fitting)

    def _frozen(self) -> list[FrozenTrial]:
        left = ("interrupted", "parent")
        return [
            frozen
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state in _STATUS and not any(key in frozen.user_attrs for key in left)
        ]

    def _trial(self, frozen: FrozenTrial) -> Trial:
        facts = frozen.user_attrs
        history = tuple(frozen.intermediate_values[step] for step in sorted(frozen.intermediate_values))
        stopped_at = history[-1] if history and frozen.state is TrialState.PRUNED else None
        return Trial(
            name=facts.get("name", f"trial-{frozen.number + 1}"),
            status=_STATUS[frozen.state],
            parameters=to_hyperparameters(self._spec.ranges, frozen.params),
            objective=frozen.value if frozen.state is TrialState.COMPLETE else stopped_at,
            started=_time(facts.get("started")),
            ended=_time(facts.get("ended")),
            failure=facts.get("failure"),
            history=history,
        )

    def _next_point(self) -> dict[str, Any]:
        """The first point of the grid that no trial has."""
        tried = [frozen.params for frozen in self._frozen()]
        points = grid(self._spec.ranges)
        return next((point for point in points if point not in tried), points[0])


def _drawn(ranges: Ranges, trial: Trial) -> dict[str, Any] | None:
    if trial.status != "Completed" or trial.objective is None:
        return None
    try:
        return from_hyperparameters(ranges, trial.parameters)
    except ValueError:
        return None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _sampler(spec: TuningSpec, num_trials: int) -> BaseSampler:
    seed = ((spec.seed or 0) * 1_000_003 + num_trials) % 2**32
    return RandomSampler(seed) if spec.strategy in ("random", "grid") else TPESampler(seed=seed)


def _pruner(spec: TuningSpec, max_epochs: int) -> BasePruner:
    """The median rule is what the platform stops by."""
    if spec.strategy == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max_epochs)
    return MedianPruner() if spec.early_stopping else NopPruner()


def _check_identity(folder: Path, study: optuna.Study, identity: Mapping[str, Any]) -> None:
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        return
    changed = [name for name in identity if identity[name] != known.get(name)]
    if changed:
        raise ConfigError(
            f"{folder} holds a tuning job with other {' and '.join(changed)}: name another --output, or give the same"
        )


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

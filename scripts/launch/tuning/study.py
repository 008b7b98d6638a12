"""Optuna behind a local tuning job: the search space, and a study in a SQLite file that outlives the process.

Trials that were running when the process died are marked failed and interrupted; they do not count. Optuna has no
reversed logarithmic scale: such a parameter is sampled as its distance from 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from classifier.errors import ConfigError
from launch.tuning.ranges import Choice, Range, Ranges
from launch.tuning.request import TuningSpec
from launch.tuning.trials import Trial

_FILE = "study.db"
_STATUS = {
    TrialState.RUNNING: "InProgress",
    TrialState.COMPLETE: "Completed",
    TrialState.PRUNED: "Stopped",
    TrialState.FAIL: "Failed",
}


@dataclass(frozen=True)
class NewTrial:
    """A trial to run: its number in the study, from 0, and its sampled hyperparameters."""

    number: int
    parameters: Mapping[str, str]


class Study:
    """Samples hyperparameters and stores what became of each trial."""

    def __init__(self, study: optuna.Study, spec: TuningSpec) -> None:
        self._study = study
        self._spec = spec
        self._running: dict[int, optuna.Trial] = {}

    @classmethod
    def open(cls, folder: Path, spec: TuningSpec, max_epochs: int) -> "Study":
        """Open the study of a folder, or create it.

        Args:
            max_epochs: the largest number of epochs of a trial, for Hyperband.

        Raises:
            ConfigError: its file is not a study.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = f"sqlite:///{folder / _FILE}"
        direction = "maximize" if spec.metric.direction == "Maximize" else "minimize"
        pruner = _pruner(spec, max_epochs)
        try:
            study = optuna.create_study(
                storage=storage, study_name="tuning", direction=direction, load_if_exists=True, pruner=pruner
            )
        except Exception as error:  # Optuna and SQLAlchemy have no common base class for a broken file.
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{folder / _FILE} can't be opened: {reason}: choose another name for the tuning job"
            ) from None
        # Another seed after each resumption, or the same values would be sampled again.
        study.sampler = _sampler(spec, len(study.get_trials(deepcopy=False)))
        return cls(study, spec)

    def ask(self) -> NewTrial:
        """Sample the hyperparameters of the next trial, which is running from then on."""
        if self._spec.strategy == "grid":
            self._study.enqueue_trial(self._next_point())
        trial = self._study.ask(distributions(self._spec.ranges))
        self._running[trial.number] = trial
        return NewTrial(trial.number, to_hyperparameters(self._spec.ranges, trial.params))

    def annotate(self, number: int, **facts: str) -> None:
        """Store facts about a running trial: its job's ``name``, ``started`` and ``ended`` times, its ``failure``."""
        for key, value in facts.items():
            self._running[number].set_user_attr(key, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Store the objective after an epoch, counted from 1; return whether the trial should be stopped."""
        self._running[number].report(value, epoch)
        return self._running[number].should_prune()

    def complete(self, number: int, value: float) -> None:
        """End a trial with its final objective."""
        self._study.tell(self._running.pop(number), value)

    def stop(self, number: int) -> None:
        """End a trial that was stopped early; its last reported objective counts."""
        self._study.tell(self._running.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """End a trial without an objective."""
        self._study.tell(self._running.pop(number), state=TrialState.FAIL)

    def interrupt_running(self) -> list[str]:
        """Mark all running trials as interrupted, those of a dead process included; return the names of their jobs."""
        leftovers = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for frozen in leftovers:
            trial = optuna.Trial(self._study, frozen._trial_id)
            trial.set_user_attr("interrupted", "yes")
            self._study.tell(frozen.number, state=TrialState.FAIL)
        return [frozen.user_attrs["name"] for frozen in leftovers if "name" in frozen.user_attrs]

    def trials(self) -> list[Trial]:
        """Return the trials that count, in the order in which they were sampled."""
        return [self._trial(frozen) for frozen in self._frozen()]

    @property
    def num_interrupted(self) -> int:
        """Number of trials that do not count because they were interrupted."""
        return sum("interrupted" in frozen.user_attrs for frozen in self._study.get_trials(deepcopy=False))

    def add_parent(self, parent: str, trials: Sequence[Trial]) -> int:
        """Let the sampler learn from an earlier tuning job's completed trials; adds each parent once.

        Returns:
            How many of the trials are within these ranges.
        """
        seen = {frozen.user_attrs.get("parent") for frozen in self._study.get_trials(deepcopy=False)}
        samples = [(trial, sample) for trial in trials if (sample := _sample(self._spec.ranges, trial)) is not None]
        if parent not in seen:
            for trial, sample in samples:
                self._study.add_trial(
                    optuna.create_trial(
                        params=sample,
                        distributions=distributions(self._spec.ranges),
                        value=trial.objective,
                        user_attrs={"parent": parent},
                    )
                )
        return len(samples)

    def _frozen(self) -> list[FrozenTrial]:
        uncounted = ("interrupted", "parent")
        return [
            frozen
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state in _STATUS and not any(key in frozen.user_attrs for key in uncounted)
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
        """Return the first point of the grid that no trial has."""
        tried = [frozen.params for frozen in self._frozen()]
        points = self._spec.ranges.grid()
        return next((point for point in points if point not in tried), points[0])


def _sample(ranges: Ranges, trial: Trial) -> dict[str, Any] | None:
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
    """Return the pruner; for early stopping the median rule, which is the platform's."""
    if spec.strategy == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max_epochs)
    return MedianPruner() if spec.early_stopping else NopPruner()


def distributions(ranges: Ranges) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each parameter, by name."""
    return {parameter.name: _distribution(parameter) for parameter in ranges.parameters}


def to_hyperparameters(ranges: Ranges, sample: Mapping[str, Any]) -> dict[str, str]:
    """Convert sampled values to hyperparameters, in the order of the ranges."""
    return {parameter.name: _to_string(parameter, sample[parameter.name]) for parameter in ranges.parameters}


def from_hyperparameters(ranges: Ranges, values: Mapping[str, str]) -> dict[str, Any]:
    """Convert hyperparameters to the values that Optuna would have sampled.

    Raises:
        ValueError: a hyperparameter is missing, or outside of its range.
    """
    return {parameter.name: _from_string(parameter, values.get(parameter.name)) for parameter in ranges.parameters}


def _distribution(parameter: Range) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    is_log = parameter.scaling != "Linear"
    if parameter.is_integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=is_log)
    if parameter.scaling == "ReverseLogarithmic":
        return FloatDistribution(1 - parameter.high, 1 - parameter.low, log=True)
    return FloatDistribution(parameter.low, parameter.high, log=is_log)


def _to_string(parameter: Range, sampled: Any) -> str:
    if isinstance(parameter, Choice):
        return sampled
    if parameter.is_integer:
        return str(int(sampled))
    value = 1 - sampled if parameter.scaling == "ReverseLogarithmic" else sampled
    # Rounding in the subtraction can lead out of the range.
    return repr(min(max(float(value), parameter.low), parameter.high))


def _from_string(parameter: Range, value: str | None) -> Any:
    if value is None:
        raise ValueError(f"no {parameter.name}")
    if isinstance(parameter, Choice):
        if value not in parameter.values:
            raise ValueError(f"{parameter.name}={value} is none of {parameter.values}")
        return value
    number = float(value)
    if not parameter.low <= number <= parameter.high:
        raise ValueError(f"{parameter.name}={value} is outside of its range")
    if parameter.is_integer:
        return int(number)
    return 1 - number if parameter.scaling == "ReverseLogarithmic" else number

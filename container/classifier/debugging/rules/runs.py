"""Rules on whole runs: similarity to another run, and stalling."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from classifier.debugging.library import Trial
from classifier.debugging.rules.base import Parameters, PlainRule, Selection, listing
from classifier.debugging.tensors import Tensors, open_trial


class SimilarAcrossRuns(PlainRule):
    """Tensors that are equal at the same step in another run.

    ``other_trials`` is a comma-separated list of folders or S3 prefixes.
    """

    class Options(Selection):
        """The other runs, and the tensors to compare."""

        other_trials: str = ""

    needs = "other_trials=PATH, another run's tensors with steps in common"
    meaning = "The change between the runs has no effect on these tensors."
    advice = "another seed, lr or augmentation; check that the hyperparameter that you changed has an effect"

    def __init__(self, base_trial: Trial, other_trials: Sequence[Trial] | str | None = None, **parameters: Any) -> None:
        if isinstance(other_trials, str):
            other_trials = [open_trial(path.strip()) for path in other_trials.split(",")]
        super().__init__(base_trial, other_trials, **parameters)

    def check_step(self, step: int) -> str | None:
        """Describe the tensors of a step that equal those of the first such run."""
        selection = self.parameters
        collections = selection.collections("weights,gradients,losses")
        names = self.tensors.names(step, regex=selection.tensor_regex, collections=collections)
        for trial in self.other_trials or ():
            other = Tensors.of(trial)
            common = [name for name in names if name in other.names(step, regex=".*")]
            equal = [name for name in common if _are_equal(self.tensors, other, name, step)]
            self.evaluated = self.evaluated or bool(common)
            if equal:
                return f"{len(equal)} of {len(common)} tensors are equal to those in {trial.path}: {listing(equal)}"
        return None


def _are_equal(one: Tensors, other: Tensors, name: str, step: int) -> bool:
    value, others = one.value(name, step), other.value(name, step)
    if value is not None and others is not None:
        return np.array_equal(value, others)
    figures = one.reductions(name, step)
    return bool(figures) and figures == other.reductions(name, step)


class StalledTrainingRule(PlainRule):
    """Over ``threshold`` seconds between two saved steps, or since the last if the training has not ended.

    ``stop_training_on_fire`` is accepted for compatibility with AWS, but ignored.
    """

    class Options(Parameters):
        """Seconds without a saved step; the other parameters are accepted for compatibility."""

        threshold: float = Field(1800, gt=0)
        stop_training_on_fire: bool = False
        training_job_name_prefix: str | None = None

    needs = "two saved steps"
    meaning = "The job waits for data, for another host, or for a full disk."
    advice = "check the log of that time; num_workers=auto; File instead of FastFile input; a larger volume"
    _last: float | None = None

    def check_step(self, step: int) -> str | None:
        """Describe the seconds between the last saved step and this one if they exceed the threshold."""
        now = self.tensors.written_at(step)
        last, self._last = self._last, now
        if last is None:
            return None
        self.evaluated = True
        return f"no tensor was saved for {now - last:,.0f} s" if now - last > self.parameters.threshold else None

    def conclude(self, *, ended: bool) -> str | None:
        """Describe the seconds since the last saved step if they exceed the threshold; None if training has ended."""
        if ended or self._last is None or time.time() - self._last <= self.parameters.threshold:
            return None
        return f"no tensor was saved for {time.time() - self._last:,.0f} s, and the training has not ended"

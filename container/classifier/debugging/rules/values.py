"""Rules on any tensors: their values, their changes between steps and runs, and the time between saved steps."""

import time
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from pydantic import Field

from classifier.debugging.library import Trial
from classifier.debugging.rules.base import Parameters, PlainRule, Selection, listing
from classifier.debugging.tensors import Tensors, open_trial


class _ValueRule(PlainRule):
    """A rule that evaluates the selected tensors of a step one by one."""

    collections = "weights,gradients"
    needs = "the collections weights or gradients"

    def selected(self, step: int) -> list[str]:
        """Return the names of the tensors that the parameters select at a step."""
        parameters = self.parameters
        if parameters.tensor_regex:
            return self.tensors.names(step, regex=parameters.tensor_regex)
        return self.tensors.names(step, collections=parameters.collections(self.collections))

    def check_step(self, step: int) -> str | None:
        verdicts = {name: self.judge(name, step) for name in self.selected(step)}
        known = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
        self.evaluated = bool(known)
        bad = [name for name, verdict in known.items() if verdict]
        return self.describe(bad, len(known)) if bad else None

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether a tensor meets the rule's condition; None if not enough of it was saved."""
        raise NotImplementedError

    def describe(self, bad: list[str], number: int) -> str:
        """Describe the tensors that meet the condition, out of ``number``."""
        raise NotImplementedError


class AllZero(_ValueRule):
    """Tensors of which at least ``threshold`` % are zeros; by reductions alone, those whose maximum is 0.

    At the first step, zero weights and the zero gradients before them are by design.
    """

    class Options(Selection):
        """Percentage of zeros, and the tensors to read."""

        threshold: float = Field(100, gt=0, le=100)

    meaning = "The layer is dead: its output or its gradient is zero."
    advice = "a smaller lr (dead ReLUs get no gradient); pretrained=true; freeze=none"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether enough of the tensor is zero."""
        if self.tensors.facts.matrices and self.tensors.training_step(step) == 0:
            return None
        value = self.tensors.value(name, step)
        if value is not None and value.size:
            return bool(100 * np.mean(value == 0) >= self.parameters.threshold)
        largest = self.tensors.reduction(name, step, "abs_max")
        return None if largest is None else largest == 0

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        return f"{len(bad)} of {number} tensors are {self.parameters.threshold:g} % zeros: {listing(bad)}"


class ExplodingTensor(_ValueRule):
    """Tensors with values that are not finite, or beyond ``max_abs``; with ``only_nan``, with NaN.

    AWS's rule has no ``max_abs``; but at 1e12, values that overflow in the next step are still finite.
    """

    class Options(Selection):
        """Whether only NaN counts, the largest usual absolute value, and the tensors to read."""

        only_nan: bool = False
        max_abs: float = Field(1e10, gt=0)

    collections = "losses,weights,biases,gradients"
    needs = "losses, weights or gradients"
    meaning = "The values have overflowed; everything computed from them is invalid."
    advice = "a smaller lr; warmup_epochs=1; precision=fp32 instead of fp16"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether a value is not finite; by reductions alone, whether a reduction is not."""
        value = self.tensors.value(name, step)
        if value is not None and value.dtype.kind == "f":
            if self.parameters.only_nan:
                return bool(np.isnan(value).any())
            # NaN is not below the bound, either.
            return bool(value.size) and not bool(np.abs(value).max() <= self.parameters.max_abs)
        figures = self.tensors.reductions(name, step)
        if not figures:
            return None
        if self.parameters.only_nan:
            return any(np.isnan(figure) for figure in figures.values())
        largest = self.tensors.reduction(name, step, "abs_max")
        return not all(map(isfinite, figures.values())) or (largest or 0) > self.parameters.max_abs

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        values = "NaN" if self.parameters.only_nan else f"NaN, inf or values beyond {self.parameters.max_abs:g}"
        return f"{len(bad)} of {number} tensors contain {values}: {listing(bad)}"


class UnchangedTensor(_ValueRule):
    """Tensors that are equal at ``num_steps`` successive saved steps; reductions must be exactly equal."""

    class Options(Selection):
        """Number of steps, tolerances as in ``numpy.allclose``, and the tensors to read."""

        num_steps: int = Field(3, ge=2)
        rtol: float = Field(1e-5, ge=0)
        atol: float = Field(1e-8, ge=0)
        equal_nan: bool = False

    meaning = "The layer does not learn: it is frozen, cut off from the loss, or its gradient is zero."
    advice = "freeze=none; a larger lr; a smaller lr, if its ReLUs are dead"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._same: dict[str, int] = {}
        self._before: dict[str, object] = {}

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether the tensor equals those of the last steps; None at its first."""
        value = self.tensors.value(name, step)
        now: object = value if value is not None else self.tensors.reductions(name, step)
        before, self._before[name] = self._before.get(name), now
        same = before is not None and self._equal(before, now)
        self._same[name] = self._same.get(name, 1) + 1 if same else 1
        return None if before is None else self._same[name] >= self.parameters.num_steps

    def _equal(self, before: object, now: object) -> bool:
        if isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
            if before.shape != now.shape:
                return False
            options = self.parameters
            return np.allclose(before, now, rtol=options.rtol, atol=options.atol, equal_nan=options.equal_nan)
        return bool(now) and before == now

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors, the number of steps and the first names."""
        return f"{len(bad)} of {number} tensors are equal at {self.parameters.num_steps} saved steps: {listing(bad)}"


class TensorVariance(_ValueRule):
    """Tensors whose variance is outside the given thresholds, for which AWS has no defaults."""

    class Options(Selection):
        """Bounds of the variance, both optional, and the tensors to read."""

        max_threshold: float | None = None
        min_threshold: float | None = None

    needs = "max_threshold or min_threshold, and weights or gradients"
    meaning = "A large variance saturates the following layers; with a small one, all units learn the same."
    advice = "pretrained=true; a smaller lr, or more weight_decay, if the variance grew"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether the variance is out of bounds; None without a bound or a variance."""
        low, high = self.parameters.min_threshold, self.parameters.max_threshold
        variance = self.tensors.reduction(name, step, "variance")
        if variance is None or (low is None and high is None):
            return None
        return (low is not None and variance < low) or (high is not None and variance > high)

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        return f"{len(bad)} of {number} tensors have a variance out of bounds: {listing(bad)}"


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
        if now is None:
            return None
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

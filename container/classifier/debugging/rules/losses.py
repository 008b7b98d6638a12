"""The rule on the loss over time, and the losses of steps that all rules read."""

from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, median, pvariance
from typing import Literal

from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import PlainRule, Selection
from classifier.debugging.tensors import Tensors

_MODES = {"TRAIN": ModeKeys.TRAIN, "EVAL": ModeKeys.EVAL, "PREDICT": ModeKeys.PREDICT, "GLOBAL": ModeKeys.GLOBAL}


def loss_at(tensors: Tensors, step: int, regex: str | None = None) -> float | None:
    """Return the mean of a step's losses; None if none was saved. ``regex`` replaces the collection of losses."""
    names = tensors.names(step, regex=regex, collections=("losses",))
    values = [value for name in names if (value := tensors.reduction(name, step, "mean")) is not None]
    return fmean(values) if values else None


def num_photos_at(tensors: Tensors, step: int) -> int:
    """Return the batch size of a step by its labels; 1 if they were not saved, so that all batches weigh the same."""
    labels = tensors.names(step, regex="Loss_input_1$")
    value = tensors.value(labels[0], step) if labels else None
    return 1 if value is None else len(value)


@dataclass
class Mean:
    """Mean of batch losses, weighted by batch size, since the last batch of an evaluation is often smaller."""

    total: float = 0.0
    weight: int = 0

    def add(self, loss: float, weight: int) -> None:
        """Add the mean loss of a batch of ``weight`` photos."""
        self.total += loss * weight
        self.weight += weight

    @property
    def value(self) -> float:
        """The mean; at least one loss must have been added."""
        return self.total / self.weight


@dataclass(frozen=True)
class _Window:
    """Losses of ``num_steps`` saved steps; ``error`` is the squared standard error of the mean."""

    mean: float
    middle: float
    error: float


class LossNotDecreasing(PlainRule):
    """Loss that has not fallen since the first ``num_steps`` saved steps, or that rises again after it fell.

    AWS's rule compares the losses of two steps. A batch's loss is mostly noise, so means of ``num_steps`` are compared
    here: a fall counts if it is over ``diff_percent`` and two standard errors, a rise if two means in a row are over
    ``increase_threshold_percent``, three standard errors and a tenth of the fall above the lowest. A loss that fell and
    then stays is no fault. Without ``mode``, as in AWS's rule, validation comes first, then training; the loss of an
    evaluation is the mean of its batches.
    """

    class Options(Selection):
        """Losses to read, steps per window, and thresholds in percent."""

        use_losses_collection: bool = True
        num_steps: int = Field(10, ge=1)
        diff_percent: float = Field(0.1, ge=0, le=100)
        increase_threshold_percent: float = Field(5, ge=0)
        mode: Literal["EVAL", "TRAIN", "PREDICT", "GLOBAL"] | None = None

    needs = "losses of at least 20 steps"
    meaning = "The steps are too large or too small, or the photos do not determine their labels."
    advice = "a smaller lr, if the loss rises; a larger lr, if it stays where it was; warmup_epochs=1"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        modes = (self.parameters.mode,) if self.parameters.mode else ("EVAL", "TRAIN", "GLOBAL")
        self._courses = {_MODES[mode]: _Course(self.parameters) for mode in modes}
        self._problems: dict[ModeKeys, str | None] = {}
        self._evaluation = Mean()

    def check_step(self, step: int) -> str | None:
        """Describe a loss that is not finite or, at the end of a window, one that rose or has not fallen."""
        mode, loss = self.tensors.mode(step), loss_at(self.tensors, step, self.parameters.tensor_regex)
        if mode == ModeKeys.EVAL and loss is not None:
            self._evaluation.add(loss, num_photos_at(self.tensors, step))
            return None
        seen = self._end_evaluation()
        return seen if loss is None else self._add(mode, loss) or seen

    def conclude(self, *, ended: bool) -> str | None:  # noqa: ARG002 - the rule's signature
        """Judge the evaluation that the last step may have ended."""
        return self._end_evaluation()

    def _end_evaluation(self) -> str | None:
        if not self._evaluation.weight:
            return None
        loss, self._evaluation = self._evaluation.value, Mean()
        return self._add(ModeKeys.EVAL, loss)

    def _add(self, mode: ModeKeys, loss: float) -> str | None:
        """Add a loss; at the end of a window, return the first problem of all modes."""
        if mode not in self._courses or not self._courses[mode].add(loss):
            return None
        self.evaluated = True
        self._problems[mode] = self._courses[mode].problem()
        found = [(mode, problem) for mode in self._courses if (problem := self._problems.get(mode))]
        names = {ModeKeys.EVAL: "validation "}
        return f"the {names.get(found[0][0], '')}{found[0][1]}" if found else None


class _Course:
    """The course of a loss, in windows of ``num_steps``."""

    def __init__(self, parameters: LossNotDecreasing.Options) -> None:
        self._parameters = parameters
        self._window: list[float] = []
        self._windows: list[_Window] = []
        self._not_finite: float | None = None

    def add(self, loss: float) -> bool:
        """Add a loss, and return whether there is something to judge: the second window or a later one has ended."""
        if not isfinite(loss):
            self._not_finite = loss
            return True
        self._not_finite = None
        self._window.append(loss)
        if len(self._window) < self._parameters.num_steps:
            return False
        window, self._window = self._window, []
        self._windows.append(_Window(fmean(window), median(window), pvariance(window) / len(window)))
        return len(self._windows) >= 2

    def problem(self) -> str | None:
        """Describe the problem of the course so far."""
        if self._not_finite is not None:
            return f"loss is {self._not_finite}"
        first, last = self._windows[0], self._windows[-1]
        if last.mean < first.mean / 20:
            return None
        return self._not_fallen(first) or self._rises(first)

    def _not_fallen(self, first: _Window) -> str | None:
        # The lowest of the last three, since one window may have had difficult photos.
        last = min(self._windows[1:][-3:], key=lambda window: window.mean)
        error = sqrt(first.error + last.error)
        fall = first.mean - last.mean
        if fall > max(self._parameters.diff_percent / 100 * abs(first.mean), 2 * error):
            return None
        steps = len(self._windows) * self._parameters.num_steps
        return (
            f"loss has not fallen in {steps} saved steps: {first.mean:.4g} on average in the first "
            f"{self._parameters.num_steps}, {self._windows[-1].mean:.4g} in the last"
        )

    def _rises(self, first: _Window) -> str | None:
        best = min(window.mean for window in self._windows)
        error = sqrt(2 * fmean(window.error for window in self._windows))
        limit = best + max(self._parameters.increase_threshold_percent / 100 * abs(best), (first.mean - best) / 10)
        for window in self._windows[-2:]:
            # An exploding loss has a large standard error, too; its median shows the rise.
            if window.mean <= limit or (window.mean - best <= 3 * error and window.middle <= 3 * best):
                return None
        now = self._windows[-1].mean
        rise = 100 * (now - best) / max(abs(best), 1e-12)
        return f"loss rose by {rise:.3g} %, from {best:.4g} to {now:.4g} (means of {self._parameters.num_steps})"

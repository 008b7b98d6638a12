"""Rules on the loss over time, and the losses of steps and epochs that they read."""

from dataclasses import dataclass, field
from math import isfinite, sqrt
from statistics import fmean, median, pvariance

from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import Parameters, PlainRule, Selection
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


@dataclass
class EpochLosses:
    """Running mean losses of the current epoch's training steps and of the evaluation after them."""

    training: Mean = field(default_factory=Mean)
    evaluation: Mean = field(default_factory=Mean)

    def add(self, mode: ModeKeys, loss: float, weight: int) -> tuple[float, float] | None:
        """Add a step; if it begins a new epoch, return the last epoch's losses (training, evaluation)."""
        if mode == ModeKeys.EVAL:
            self.evaluation.add(loss, weight)
            return None
        if mode not in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
            return None
        pair = self.close()
        self.training.add(loss, 1)
        return pair

    def close(self) -> tuple[float, float] | None:
        """Return the losses (training, evaluation) and reset both; None if either has no step."""
        if not (self.training.weight and self.evaluation.weight):
            return None
        pair = self.training.value, self.evaluation.value
        self.training, self.evaluation = Mean(), Mean()
        return pair


class _EpochRule(PlainRule):
    """A rule on the mean losses of training and validation in each epoch."""

    needs = "losses of training and of validation (modes TRAIN and EVAL)"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._epochs = EpochLosses()
        self._before: int | None = None

    def check_step(self, step: int) -> str | None:
        # Only the step after an evaluation shows that it is complete.
        self.shown_at, self._before = self._before, step
        loss = loss_at(self.tensors, step, getattr(self.parameters, "tensor_regex", None))
        if loss is None:
            return None
        return self._judged(self._epochs.add(self.tensors.mode(step), loss, num_photos_at(self.tensors, step)))

    def conclude(self, *, ended: bool) -> str | None:  # noqa: ARG002 - the rule's signature
        self.shown_at = None
        return self._judged(self._epochs.close())

    def _judged(self, pair: tuple[float, float] | None) -> str | None:
        if pair is None:
            return None
        self.evaluated = True
        return self.judge(*pair)

    def judge(self, training: float, validation: float) -> str | None:
        """Describe the problem of an epoch's mean losses; None if there is none."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Window:
    """Losses of ``num_steps`` saved steps; ``error`` is the squared standard error of the mean."""

    mean: float
    middle: float
    error: float


class LossNotDecreasing(PlainRule):
    """Loss that rises, or no longer falls, between windows of ``num_steps`` saved steps.

    AWS's rule compares two steps. A batch's loss is mostly noise, so means of windows are compared here. A rise counts
    if two windows show it by over three standard errors; a loss below 1/20 of the first never counts.
    """

    class Options(Selection):
        """Losses to read, steps per window, and thresholds in percent."""

        use_losses_collection: bool = True
        num_steps: int = Field(10, ge=1)
        diff_percent: float = Field(0.1, ge=0, le=100)
        increase_threshold_percent: float = Field(5, ge=0)
        mode: str | None = None

    needs = "losses of at least 20 steps"
    meaning = "The steps are too large, or the model has learned what it can at this learning rate."
    advice = (
        "a smaller lr, or warmup_epochs=1 if the loss rises early; scheduler=cosine; fewer epochs if it has converged"
    )

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._window: list[float] = []
        self._windows: list[_Window] = []
        self._first: float | None = None

    def check_step(self, step: int) -> str | None:
        """Describe a loss that is not finite or, at the end of a window, one that rose or no longer falls."""
        wanted = _MODES.get((self.parameters.mode or "TRAIN").upper(), ModeKeys.TRAIN)
        if self.tensors.mode(step) not in (wanted, ModeKeys.GLOBAL):
            return None
        loss = loss_at(self.tensors, step, self.parameters.tensor_regex)
        if loss is None:
            return None
        if not isfinite(loss):
            self.evaluated = True
            return f"the loss is {loss}"
        self._first = loss if self._first is None else self._first
        self._window.append(loss)
        if len(self._window) < self.parameters.num_steps:
            return None
        window, self._window = self._window, []
        self._windows.append(_Window(fmean(window), median(window), pvariance(window) / len(window)))
        if len(self._windows) < 2 or self._windows[-1].mean < self._first / 20:
            return None
        self.evaluated = True
        return self._rises() or self._stagnates()

    def _rises(self) -> str | None:
        """Whether both of the last two windows are above the lowest."""
        best = min(window.mean for window in self._windows)
        error = sqrt(2 * fmean(window.error for window in self._windows))
        limit = best + self.parameters.increase_threshold_percent / 100 * abs(best)
        for window in self._windows[-2:]:
            # An exploding loss has a large standard error, too; its median shows the rise.
            if window.mean <= limit or (window.mean - best <= 3 * error and window.middle <= 3 * best):
                return None
        now = self._windows[-1].mean
        rise = 100 * (now - best) / max(abs(best), 1e-12)
        return f"the loss rose by {rise:.3g} %, from {best:.4g} to {now:.4g} (means of {self.parameters.num_steps})"

    def _stagnates(self) -> str | None:
        """Whether the last third of the windows is no lower than the third before; at least five windows each."""
        number = max(5, len(self._windows) // 3)
        if len(self._windows) < 2 * number:
            return None
        last = fmean(window.mean for window in self._windows[-number:])
        before = fmean(window.mean for window in self._windows[-2 * number : -number])
        if last < before * (1 - self.parameters.diff_percent / 100):
            return None
        steps = number * self.parameters.num_steps
        return f"the loss no longer falls: {before:.4g} on average, then {last:.4g} in the last {steps} saved steps"


class Overfit(_EpochRule):
    """Mean validation loss above that of training by ``ratio_threshold``, over ``patience`` times in a row."""

    class Options(Parameters):
        """First step to evaluate, tolerated evaluations, and the ratio of excess to training loss."""

        tensor_regex: str | None = None
        start_step: int = Field(0, ge=0)
        patience: int = Field(1, ge=0)
        ratio_threshold: float = Field(0.1, ge=0)

    meaning = "The model memorizes its training photos: its gains on them do not generalize to others."
    advice = (
        "augmentation=strong, more weight_decay, label_smoothing=0.1, freeze=backbone, fewer epochs or "
        "early_stopping_patience=3; best of all, more photos"
    )
    _exceeded = 0

    def check_step(self, step: int) -> str | None:
        """Describe the epoch that has just ended; None before ``start_step``."""
        return super().check_step(step) if step >= self.parameters.start_step else None

    def judge(self, training: float, validation: float) -> str | None:
        """Describe the excess of the validation loss if it lasted for more than ``patience`` epochs."""
        ratio = (validation - training) / max(training, 1e-12)
        self._exceeded = self._exceeded + 1 if ratio > self.parameters.ratio_threshold else 0
        if self._exceeded <= self.parameters.patience:
            return None
        more = f"{100 * ratio:.0f} %" if ratio < 10 else f"{ratio:.3g} times"
        return (
            f"validation loss {validation:.4g} against {training:.4g} in training, "
            f"{more} more, for {self._exceeded} evaluations in a row"
        )


class Overtraining(_EpochRule):
    """Too many evaluations since the mean loss of training, or of validation, last fell by ``delta``."""

    class Options(Parameters):
        """Epochs without improvement that are tolerated, and the decrease that counts as one."""

        patience_train: int = Field(5, ge=1)
        patience_validation: int = Field(10, ge=1)
        delta: float = Field(0.01, ge=0)

    meaning = "Further epochs do not improve the model, and may make it worse on new photos."
    advice = "fewer epochs, or early_stopping_patience=3; a larger lr if the loss never fell"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)
        self._best, self._waited = [float("inf")] * 2, [0, 0]

    def judge(self, training: float, validation: float) -> str | None:
        """Describe which loss has not improved for its number of epochs, training first."""
        limits = self.parameters.patience_train, self.parameters.patience_validation
        for index, loss in enumerate((training, validation)):
            improved = loss < self._best[index] - self.parameters.delta
            self._waited[index] = 0 if improved else self._waited[index] + 1
            self._best[index] = loss if improved else self._best[index]
        for name, best, waited, limit in zip(("training", "validation"), self._best, self._waited, limits, strict=True):
            if waited >= limit:
                return (
                    f"the {name} loss has not fallen by {self.parameters.delta:g} below {best:.4g} in {waited} epochs"
                )
        return None

"""Saved losses → one a step, and the means of an epoch's training and validation."""

from dataclasses import dataclass, field
from statistics import fmean

from classifier.debugging.library import ModeKeys
from classifier.debugging.tensors import Tensors


def loss_at(tensors: Tensors, step: int, regex: str | None = None) -> float | None:
    """The mean of a step's losses, or None where none was saved."""
    names = tensors.names(step, regex=regex, collections=("losses",))
    values = [value for name in names if (value := tensors.figure(name, step, "mean")) is not None]
    return fmean(values) if values else None


def photos_at(tensors: Tensors, step: int) -> int:
    """How many photos a step's loss is the mean of, where its labels were saved; else 1, as if all had as many."""
    labels = tensors.names(step, regex="Loss_input_1$")
    value = tensors.value(labels[0], step) if labels else None
    return 1 if value is None else len(value)


@dataclass
class Mean:
    """The mean of losses, each weighed by the photos that it is of: an evaluation's last batch is a small one."""

    total: float = 0.0
    weight: int = 0

    def add(self, loss: float, weight: int) -> None:
        self.total += loss * weight
        self.weight += weight

    @property
    def value(self) -> float:
        return self.total / self.weight


@dataclass
class Epochs:
    """Losses as they come → the mean of each stretch of training and of the evaluation after it."""

    training: Mean = field(default_factory=Mean)
    evaluation: Mean = field(default_factory=Mean)

    def add(self, mode: ModeKeys, loss: float, weight: int) -> tuple[float, float] | None:
        """The mean losses of training and evaluation, when a step of training shows that an evaluation is over."""
        if mode == ModeKeys.EVAL:
            self.evaluation.add(loss, weight)
            return None
        if mode not in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
            return None
        pair = self.close()
        self.training.add(loss, 1)
        return pair

    def close(self) -> tuple[float, float] | None:
        """The means, if both are there; then begins anew."""
        if not (self.training.weight and self.evaluation.weight):
            return None
        pair = self.training.value, self.evaluation.value
        self.training, self.evaluation = Mean(), Mean()
        return pair

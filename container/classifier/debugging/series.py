"""Losses and the curves that the report draws, read from saved tensors."""

from dataclasses import dataclass, field
from statistics import fmean

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.gradients import WeightUpdateRatio
from classifier.debugging.tensors import Tensors

Points = list[tuple[int, float]]


@dataclass
class Series:
    """Curves of a training as (training step, value).

    ``validation`` has the mean loss of each evaluation; the dictionaries have a curve for each layer.
    """

    training: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)
    gradient_norm: dict[str, Points] = field(default_factory=dict)
    update_ratio: dict[str, Points] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the content of ``debugger_series.json``."""
        return {
            "loss": {"train": self.training, "validation": self.validation},
            "gradient_norm": self.gradient_norm,
            "update_ratio": self.update_ratio,
        }


def read_series(tensors: Tensors) -> Series:
    """Read the curves in one pass over all saved steps."""
    series, ratios = Series(), WeightUpdateRatio(tensors.trial)
    evaluation, began = Mean(), 0
    for step in tensors.steps():
        mode, loss = tensors.mode(step), loss_at(tensors, step)
        if mode == ModeKeys.EVAL:
            if loss is not None:
                began = began if evaluation.weight else tensors.training_step(step)
                evaluation.add(loss, num_photos_at(tensors, step))
            continue
        if evaluation.weight:
            series.validation.append((began, evaluation.value))
            evaluation = Mean()
        if mode == ModeKeys.PREDICT:
            continue
        now = tensors.training_step(step)
        if loss is not None:
            series.training.append((now, loss))
        for name in tensors.names(step, regex=r"^gradient/.*weight$"):
            norm = tensors.reduction(name, step, "l2")
            if norm is not None:
                series.gradient_norm.setdefault(_layer(name), []).append((now, norm))
        for name, ratio in ratios.ratios(step).items():
            series.update_ratio.setdefault(_layer(name), []).append((now, ratio))
    if evaluation.weight:
        series.validation.append((began, evaluation.value))
    return series


def _layer(name: str) -> str:
    """The layer of a tensor: ``layer1.0.conv1`` for ``gradient/ResNet_layer1.0.conv1.weight``."""
    return name.removeprefix("gradient/").removesuffix(".weight").split("_", 1)[-1]


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

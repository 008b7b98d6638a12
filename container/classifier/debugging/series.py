"""Saved tensors → the curves that the report draws."""

from dataclasses import dataclass, field
from statistics import fmean

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.gradients import WeightUpdateRatio
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


Points = list[tuple[int, float]]


@dataclass
class Series:
    """Points are (training step, value). ``validation`` has the mean of each evaluation."""

    training: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)
    gradient_norm: dict[str, Points] = field(default_factory=dict)
    update_ratio: dict[str, Points] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return {
            "loss": {"train": self.training, "validation": self.validation},
            "gradient_norm": self.gradient_norm,
            "update_ratio": self.update_ratio,
        }


def read_series(tensors: Tensors) -> Series:
    """One pass over all saved steps."""
    series, ratios = Series(), WeightUpdateRatio(tensors.trial)
    evaluation, began = Mean(), 0
    for step in tensors.steps():
        mode, loss = tensors.mode(step), loss_at(tensors, step)
        if mode == ModeKeys.EVAL:
            if loss is not None:
                began = began if evaluation.weight else tensors.training_step(step)
                evaluation.add(loss, photos_at(tensors, step))
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
            norm = tensors.figure(name, step, "l2")
            if norm is not None:
                series.gradient_norm.setdefault(_layer(name), []).append((now, norm))
        for name, ratio in ratios.ratios(step).items():
            series.update_ratio.setdefault(_layer(name), []).append((now, ratio))
    if evaluation.weight:
        series.validation.append((began, evaluation.value))
    return series


def _layer(name: str) -> str:
    """``gradient/ResNet_layer1.0.conv1.weight`` → ``layer1.0.conv1``."""
    return name.removeprefix("gradient/").removesuffix(".weight").split("_", 1)[-1]

"""Saved tensors → the curves that the report draws."""

from dataclasses import dataclass, field

from classifier.debugging.library import ModeKeys
from classifier.debugging.losses import Mean, loss_at, photos_at
from classifier.debugging.rules.gradients import WeightUpdateRatio
from classifier.debugging.tensors import Tensors

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

"""Curves of a training, read from its saved tensors for the report, and rules on the loss curve.

The rules look for spikes, noise, plateaus, divergence of training and validation, and underfitting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isfinite
from statistics import fmean, median

from classifier.contract.findings import Finding, fired, quiet, skipped
from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.layers import WeightUpdateRatio
from classifier.debugging.rules.losses import Mean, loss_at, num_photos_at
from classifier.debugging.tensors import Tensors

Points = list[tuple[int, float]]


@dataclass
class Curves:
    """Losses and other values of a training as (training step, value).

    The rules on these curves give hints: what they see also happens in trainings that end well.

    ``training`` has the losses of the saved steps, ``validation`` the mean loss of each evaluation. The dictionaries
    have a curve for each layer.
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


class CurveReader:
    """Reader of the curves, one saved step after the other."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors, self._ratios = tensors, WeightUpdateRatio(tensors.trial)
        self._curves, self._evaluation, self._began = Curves(), Mean(), 0

    def curves(self) -> Curves:
        """Return the curves so far; an evaluation that may not have ended yet counts as it is."""
        validation = list(self._curves.validation)
        if self._evaluation.weight:
            validation.append((self._began, self._evaluation.value))
        return replace(self._curves, validation=validation)

    def add(self, step: int) -> None:
        """Read a step."""
        tensors = self._tensors
        mode, loss = tensors.mode(step), loss_at(tensors, step)
        if mode == ModeKeys.EVAL:
            if loss is not None:
                self._began = self._began if self._evaluation.weight else tensors.training_step(step)
                self._evaluation.add(loss, num_photos_at(tensors, step))
            return
        self._curves, self._evaluation = self.curves(), Mean()
        if mode == ModeKeys.PREDICT:
            return
        now = tensors.training_step(step)
        if loss is not None:
            self._curves.training.append((now, loss))
        self._add_layers(step, now)

    def _add_layers(self, step: int, now: int) -> None:
        for name in self._tensors.names(step, regex=r"^gradient/.*weight$"):
            norm = self._tensors.reduction(name, step, "l2")
            if norm is not None:
                self._curves.gradient_norm.setdefault(_layer(name), []).append((now, norm))
        for name, ratio in self._ratios.ratios(step).items():
            self._curves.update_ratio.setdefault(_layer(name), []).append((now, ratio))


def read_curves(tensors: Tensors) -> Curves:
    """Read the curves of all saved steps."""
    reader = CurveReader(tensors)
    for step in tensors.steps():
        reader.add(step)
    return reader.curves()


def _layer(name: str) -> str:
    """The layer of a tensor: ``layer1.0.conv1`` for ``gradient/ResNet_layer1.0.conv1.weight``."""
    return name.removeprefix("gradient/").removesuffix(".weight").split("_", 1)[-1]


@dataclass(frozen=True)
class _CurveRule:
    """A rule on the loss curve; ``find`` is called only if ``is_readable``."""

    name: str
    needs: str
    find: Callable[[Curves], tuple[int, str] | None]
    is_readable: Callable[[Curves], bool]
    meaning: str
    advice: str


def judge_losses(curves: Curves) -> list[Finding]:
    """Return a finding for each of the five rules on the loss curve."""
    return [_judge(rule, curves) for rule in _RULES]


def _judge(rule: _CurveRule, curves: Curves) -> Finding:
    if not rule.is_readable(curves):
        return skipped(rule, f"needs {rule.needs}")
    found = rule.find(curves)
    if found is None:
        return quiet(rule)
    step, seen = found
    finding = fired(rule, seen, meaning=rule.meaning, advice=rule.advice, step=step)
    return finding.model_copy(update={"severity": "hint"})


def _spike(curves: Curves) -> tuple[int, str] | None:
    """A loss over 3 times the median of the 10 before it, and over 8 median deviations above that median."""
    for index in range(10, len(curves.training)):
        before = [value for _, value in curves.training[index - 10 : index]]
        step, value = curves.training[index]
        middle = median(before)
        usual = median(abs(loss - middle) for loss in before)
        if value > 3 * middle and value - middle > 8 * usual and value - middle > 0.5:
            return step, f"the loss jumped to {value:.3g} from about {middle:.3g}"
    return None


def _noise(curves: Curves) -> tuple[int, str] | None:
    """A mean change between saved steps of over half the mean loss, in the second half of the training."""
    later = curves.training[len(curves.training) // 2 :]
    level = fmean(value for _, value in later)
    change = fmean(abs(b - a) for (_, a), (_, b) in pairwise(later))
    if level < 0.1 or change < 0.5 * level:
        return None
    return later[0][0], f"the loss changes by {change:.3g} between saved steps, at a mean of {level:.3g}"


def _plateau(curves: Curves) -> tuple[int, str] | None:
    """Validation losses that stay within 1 % of the first in the last third of the epochs, and are not near 0."""
    third = curves.validation[-max(4, len(curves.validation) // 3) :]
    first, values = third[0], [value for _, value in third]
    if min(values) < 0.99 * first[1] or max(values) > 1.01 * first[1] or first[1] < 0.05:
        return None
    return first[0], f"the validation loss stays at {fmean(values):.4g} for {len(third)} epochs"


def _divergence(curves: Curves) -> tuple[int, str] | None:
    """A validation loss that ends 10 % above its minimum while the training loss keeps falling."""
    at = min(range(len(curves.validation)), key=lambda index: curves.validation[index][1])
    (step, lowest), (_, last) = curves.validation[at], curves.validation[-1]
    around = [value for s, value in curves.training if s <= step][-10:]
    final = [value for _, value in curves.training][-10:]
    if last < 1.1 * lowest or len(curves.validation) - 1 - at < 2 or not around or fmean(final) >= fmean(around):
        return None
    return step, (
        f"from here on, the validation loss rose from {lowest:.3g} to {last:.3g}, while the training loss fell from "
        f"{fmean(around):.3g} to {fmean(final):.3g}"
    )


def _underfit(curves: Curves) -> tuple[int, str] | None:
    """A training loss that ends above 80 % of its initial value."""
    first = fmean(value for _, value in curves.training[:5])
    final = fmean(value for _, value in curves.training[-5:])
    if final <= 0.8 * first or first < 0.2:
        return None
    return curves.training[-1][0], f"the training loss fell only from {first:.3g} to {final:.3g}"


def _has_training(curves: Curves) -> bool:
    return len(curves.training) >= 20 and all(isfinite(value) for _, value in curves.training)


def _has_epochs(curves: Curves) -> bool:
    return len(curves.validation) >= 4 and all(isfinite(value) for _, value in curves.validation)


_RULES = (
    _CurveRule(
        "LossSpike",
        "training losses of 20 steps",
        _spike,
        _has_training,
        "One batch set the model back: the step was too large, or its photos are outliers.",
        "a smaller lr; warmup_epochs=1; check for photos that do not belong",
    ),
    _CurveRule(
        "NoisyLoss",
        "training losses of 20 steps",
        _noise,
        _has_training,
        "Successive batches pull the model in different directions: batches are too small, or steps too large.",
        "a larger batch_size; a smaller lr; scheduler=cosine",
    ),
    _CurveRule(
        "LossPlateau",
        "validation losses of 4 epochs",
        _plateau,
        _has_epochs,
        "Further epochs with these settings do not improve the model.",
        "early_stopping_patience=3; a larger model or image_size; freeze=none",
    ),
    _CurveRule(
        "LossDivergence",
        "validation losses of 4 epochs",
        _divergence,
        _has_epochs,
        "From this step on, the model overfits: it memorizes its training photos.",
        "augmentation=strong; label_smoothing=0.1; early_stopping_patience=3; more photos",
    ),
    _CurveRule(
        "Underfit",
        "training losses of 20 steps",
        _underfit,
        _has_training,
        "The model has hardly learned: it needs more steps, larger steps, or more trainable layers.",
        "more epochs; freeze=none; pretrained=true; less augmentation or weight_decay",
    ),
)

"""Rules on the loss curve: spikes, noise, plateaus, divergence of training and validation, underfitting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from statistics import fmean, median

from classifier.contract.findings import Finding, fired, quiet, skipped

Point = tuple[int, float]  # training step, loss


@dataclass(frozen=True)
class Curve:
    """Training losses by saved step, and mean validation losses by epoch."""

    training: Sequence[Point]
    validation: Sequence[Point]


@dataclass(frozen=True)
class _CurveRule:
    """A rule on the loss curve; ``find`` is called only if ``is_readable``."""

    name: str
    needs: str
    find: Callable[[Curve], tuple[int, str] | None]
    is_readable: Callable[[Curve], bool]
    meaning: str
    advice: str


def read_curve(curve: Curve) -> list[Finding]:
    """Return a finding for each of the five rules on the loss curve."""
    return [_read(rule, curve) for rule in _RULES]


def _read(rule: _CurveRule, curve: Curve) -> Finding:
    if not rule.is_readable(curve):
        return skipped(rule, f"needs {rule.needs}")
    found = rule.find(curve)
    if found is None:
        return quiet(rule)
    step, seen = found
    return fired(rule, seen, meaning=rule.meaning, advice=rule.advice, step=step)


def _spike(curve: Curve) -> tuple[int, str] | None:
    """A loss over 3 times the median of the 10 before it, and over 8 median deviations above that median."""
    for index in range(10, len(curve.training)):
        before = [value for _, value in curve.training[index - 10 : index]]
        step, value = curve.training[index]
        middle = median(before)
        usual = median(abs(loss - middle) for loss in before)
        if value > 3 * middle and value - middle > 8 * usual and value - middle > 0.5:
            return step, f"the loss jumped to {value:.3g} from about {middle:.3g}"
    return None


def _noise(curve: Curve) -> tuple[int, str] | None:
    """A mean change between saved steps of over half the mean loss, in the second half of the training."""
    later = curve.training[len(curve.training) // 2 :]
    level = fmean(value for _, value in later)
    change = fmean(abs(b - a) for (_, a), (_, b) in pairwise(later))
    if level < 0.1 or change < 0.5 * level:
        return None
    return later[0][0], f"the loss changes by {change:.3g} between saved steps, at a mean of {level:.3g}"


def _plateau(curve: Curve) -> tuple[int, str] | None:
    """Validation losses that stay within 1 % of the first in the last third of the epochs, and are not near 0."""
    third = curve.validation[-max(4, len(curve.validation) // 3) :]
    first, values = third[0], [value for _, value in third]
    if min(values) < 0.99 * first[1] or max(values) > 1.01 * first[1] or first[1] < 0.05:
        return None
    return first[0], f"the validation loss stays at {fmean(values):.4g} for {len(third)} epochs"


def _divergence(curve: Curve) -> tuple[int, str] | None:
    """A validation loss that ends 10 % above its minimum while the training loss keeps falling."""
    at = min(range(len(curve.validation)), key=lambda index: curve.validation[index][1])
    (step, lowest), (_, last) = curve.validation[at], curve.validation[-1]
    around = [value for s, value in curve.training if s <= step][-10:]
    final = [value for _, value in curve.training][-10:]
    if last < 1.1 * lowest or len(curve.validation) - 1 - at < 2 or not around or fmean(final) >= fmean(around):
        return None
    return step, (
        f"from here on, the validation loss rose from {lowest:.3g} to {last:.3g}, while the training loss fell from "
        f"{fmean(around):.3g} to {fmean(final):.3g}"
    )


def _underfit(curve: Curve) -> tuple[int, str] | None:
    """A training loss that ends above 80 % of its initial value."""
    first = fmean(value for _, value in curve.training[:5])
    final = fmean(value for _, value in curve.training[-5:])
    if final <= 0.8 * first or first < 0.2:
        return None
    return curve.training[-1][0], f"the training loss fell only from {first:.3g} to {final:.3g}"


def _has_training(curve: Curve) -> bool:
    return len(curve.training) >= 20 and all(isfinite(value) for _, value in curve.training)


def _has_epochs(curve: Curve) -> bool:
    return len(curve.validation) >= 4 and all(isfinite(value) for _, value in curve.validation)


_RULES = (
    _CurveRule(
        "LossSpike",
        "training losses of 20 steps",
        _spike,
        _has_training,
        "One batch set the model back: the step was too large, or its photos are outliers.",
        "a smaller lr; warmup_epochs=1 if it occurs early; check for photos that do not belong",
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
        "early_stopping_patience=3; a larger model or image_size; freeze=none; a larger lr if the loss is still high",
    ),
    _CurveRule(
        "LossDivergence",
        "validation losses of 4 epochs",
        _divergence,
        _has_epochs,
        "From this step on, the model overfits: it memorizes its training photos.",
        "augmentation=strong, more weight_decay, label_smoothing=0.1, or early_stopping_patience=3",
    ),
    _CurveRule(
        "Underfit",
        "training losses of 20 steps",
        _underfit,
        _has_training,
        "The model has hardly learned: it needs more steps, larger steps, or more trainable layers.",
        "more epochs; a larger lr; freeze=none; pretrained=true; less augmentation or weight_decay",
    ),
)

"""The loss curve, read as a person reads it: spikes, noise, a plateau, curves that part, too little learnt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from statistics import fmean, median

from classifier.contract.findings import Finding

Point = tuple[int, float]  # training step, loss


@dataclass(frozen=True)
class Curve:
    """Losses of training, by saved step, and of validation, a mean an epoch; ``num_classes`` where it is known."""

    training: Sequence[Point]
    validation: Sequence[Point]
    num_classes: int | None = None


@dataclass(frozen=True)
class _Reading:
    """How one trait of a curve is found and told. ``look`` needs ``least`` points."""

    name: str
    needs: str
    look: Callable[[Curve], tuple[int, str] | None]
    is_readable: Callable[[Curve], bool]
    meaning: str
    advice: str


def read_curve(curve: Curve) -> list[Finding]:
    return [_read(reading, curve) for reading in _READINGS]


def _read(reading: _Reading, curve: Curve) -> Finding:
    if not reading.is_readable(curve):
        return Finding(rule=reading.name, outcome="skipped", seen=f"needs {reading.needs}")
    found = reading.look(curve)
    if found is None:
        return Finding(rule=reading.name, outcome="quiet")
    step, seen = found
    return Finding(
        rule=reading.name,
        outcome="fired",
        step=step,
        seen=seen,
        meaning=reading.meaning,
        advice=reading.advice,
    )


def _spike(curve: Curve) -> tuple[int, str] | None:
    """A loss far above those before it: over 3 times their median, and 8 times their usual distance from it."""
    for index in range(10, len(curve.training)):
        before = [value for _, value in curve.training[index - 10 : index]]
        step, value = curve.training[index]
        middle = median(before)
        usual = median(abs(one - middle) for one in before)
        if value > 3 * middle and value - middle > 8 * usual and value - middle > 0.5:
            return step, f"the loss jumped to {value:.3g} from about {middle:.3g}"
    return None


def _noise(curve: Curve) -> tuple[int, str] | None:
    """Changes from one saved step to the next that are over half of the loss, in the second half of the training."""
    later = curve.training[len(curve.training) // 2 :]
    level = fmean(value for _, value in later)
    change = fmean(abs(b - a) for (_, a), (_, b) in pairwise(later))
    if level < 0.1 or change < 0.5 * level:
        return None
    return later[0][0], f"the loss changes by {change:.3g} from step to step, and is {level:.3g} on average"


def _plateau(curve: Curve) -> tuple[int, str] | None:
    """Validation losses of the last third within 1 % of where that third began, and not near 0."""
    third = curve.validation[-max(4, len(curve.validation) // 3) :]
    first, values = third[0], [value for _, value in third]
    if min(values) < 0.99 * first[1] or max(values) > 1.01 * first[1] or first[1] < 0.05:
        return None
    return first[0], f"the validation loss stays at {fmean(values):.4g} for {len(third)} epochs"


def _divergence(curve: Curve) -> tuple[int, str] | None:
    """Validation loss over 10 % above its lowest, while training's goes on falling."""
    at = min(range(len(curve.validation)), key=lambda index: curve.validation[index][1])
    (step, lowest), (_, last) = curve.validation[at], curve.validation[-1]
    around = [value for s, value in curve.training if s <= step][-10:]
    final = [value for _, value in curve.training][-10:]
    if last < 1.1 * lowest or len(curve.validation) - 1 - at < 2 or not around or fmean(final) >= fmean(around):
        return None
    return step, (
        f"since here the validation loss rose from {lowest:.3g} to {last:.3g}, while the training loss fell from "
        f"{fmean(around):.3g} to {fmean(final):.3g}"
    )


def _underfit(curve: Curve) -> tuple[int, str] | None:
    """A training loss that ends above 80 % of where it began."""
    first = fmean(value for _, value in curve.training[:5])
    final = fmean(value for _, value in curve.training[-5:])
    if final <= 0.8 * first or first < 0.2:
        return None
    return curve.training[-1][0], f"the training loss went from {first:.3g} to {final:.3g} only"


def _has_training(curve: Curve) -> bool:
    return len(curve.training) >= 20 and all(isfinite(value) for _, value in curve.training)


def _has_epochs(curve: Curve) -> bool:
    return len(curve.validation) >= 4 and all(isfinite(value) for _, value in curve.validation)


_READINGS = (
    _Reading(
        "LossSpike",
        "losses of twenty steps",
        _spike,
        _has_training,
        "One batch threw the model back: a step that was too large, or photos unlike all others.",
        "a smaller lr; warmup_epochs=1 if it comes early; look for photos that do not belong in bad_images.csv",
    ),
    _Reading(
        "NoisyLoss",
        "losses of twenty steps",
        _noise,
        _has_training,
        "Each batch tells the model something else: batches are too small, or steps too large.",
        "a larger batch_size; a smaller lr; scheduler=cosine",
    ),
    _Reading(
        "LossPlateau",
        "validation losses of four epochs",
        _plateau,
        _has_epochs,
        "More of the same brings nothing.",
        "early_stopping_patience=3; a larger model or image_size; freeze=none; a larger lr if it stands high",
    ),
    _Reading(
        "LossDivergence",
        "validation losses of four epochs",
        _divergence,
        _has_epochs,
        "From that step on the model learns its training photos by heart.",
        "augmentation=strong, more weight_decay, label_smoothing=0.1, or early_stopping_patience=3",
    ),
    _Reading(
        "Underfit",
        "losses of twenty steps",
        _underfit,
        _has_training,
        "The model has hardly learnt: it needs more steps, larger steps, or more freedom.",
        "more epochs; a larger lr; freeze=none; pretrained=true; less augmentation or weight_decay",
    ),
)

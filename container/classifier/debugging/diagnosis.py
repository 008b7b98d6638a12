"""Diagnosis: the one cause that explains most of what the rules found, and its evidence.

A fault upstream sets off rules downstream: photos before weights, weights before steps, steps before what is learned.
So the causes are tried in this order, and the first that fits is the diagnosis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median

from classifier.contract.findings import Diagnosis, Finding, applicable
from classifier.debugging.curves import Curves
from classifier.debugging.facts import NORMALIZED, Facts

# Medians over the layers of a step's update relative to the weights: usual are 1e-4 to 1e-2.
_LARGE_UPDATE, _SMALL_UPDATE = 0.2, 1e-5
_GAIN = 0.2, 4.0  # usual initial size of weights, relative to He's
_MIN_PER_CLASS = 20  # training photos, on average
_NEAR_CHANCE = 0.1  # of the loss of guessing
_MAX_LEAKED = 0.1  # share of the validation photos


@dataclass(frozen=True)
class Case:
    """A training: findings by rule, facts and curves."""

    findings: Mapping[str, Finding]
    facts: Facts
    curves: Curves

    def alarms(self, *rules: str) -> list[Finding]:
        """Return those findings of the rules, by default of all, that are alarms."""
        found = [self.findings[rule] for rule in rules or self.findings if rule in self.findings]
        return [finding for finding in found if finding.is_alarm]

    def seen(self, *rules: str) -> tuple[str, ...]:
        """Return what the rules of these names saw, if they are alarms."""
        return tuple(f"{finding.rule}: {finding.seen}" for finding in self.alarms(*rules))

    @property
    def update(self) -> float | None:
        """Median over the layers of their largest update ratio; None without ratios."""
        peaks = [max(value for _, value in points) for points in self.curves.update_ratio.values() if points]
        return median(peaks) if peaks else None

    @property
    def has_learned(self) -> bool:
        """Whether the training loss ends clearly below its beginning, or below that of guessing."""
        losses = [loss for _, loss in self.curves.training]
        if not losses or not all(map(isfinite, losses[-5:])):
            return False
        chance = self.facts.chance_loss
        first = fmean(losses[:5]) if chance is None else min(fmean(losses[:5]), chance)
        return fmean(losses[-5:]) < 0.9 * first

    def describe_loss(self) -> str:
        """Describe the training loss at both ends, and that of guessing."""
        losses = [loss for _, loss in self.curves.training]
        if not losses:
            return "no loss was saved"
        chance = self.facts.chance_loss
        guessing = "" if chance is None else f" (guessing: {chance:.3g})"
        return f"training loss {losses[0]:.4g} at first, {losses[-1]:.4g} at last{guessing}"


Test = Callable[[Case], tuple[str, ...]]


@dataclass(frozen=True)
class _Cause:
    """A cause, and a test that returns its evidence, or nothing if it does not fit."""

    name: str
    title: str
    test: Test
    advice: str


# Signs of a fault only where the loss does not fall: trainings that end well have them in some layers.
_SIGNS = ("DeadRelu", "SaturatedActivation")


def weigh(findings: Sequence[Finding], facts: Facts, curves: Curves) -> list[Finding]:
    """Return the findings, with signs in single layers as hints if the training has learned."""
    if not Case({}, facts, curves).has_learned:
        return list(findings)
    return [one.model_copy(update={"severity": "hint"}) if one.rule in _SIGNS else one for one in findings]


def diagnose(findings: Sequence[Finding], facts: Facts, curves: Curves) -> Diagnosis | None:
    """Return the cause of the findings; None if none of them is an alarm and no photos are in two channels."""
    case = Case({finding.rule: finding for finding in findings}, facts, curves)
    for cause in _CAUSES:
        evidence = cause.test(case)
        if evidence:
            return Diagnosis(
                cause=cause.name,
                title=cause.title,
                evidence=evidence,
                advice=applicable(cause.advice, facts.settings),
                rules=tuple(finding.rule for finding in case.alarms()),
            )
    alarms = case.alarms()
    if not alarms:
        return None
    first = alarms[0]
    return Diagnosis(
        cause=first.rule,
        title=first.meaning,
        evidence=(first.seen,),
        advice=first.advice,
        rules=tuple(finding.rule for finding in alarms),
    )


def _input(case: Case) -> tuple[str, ...]:
    return case.seen("CheckInputImages")


def _initialization(case: Case) -> tuple[str, ...]:
    gain, found = case.facts.gain, case.seen("PoorWeightInitialization")
    if not found or case.has_learned:
        return ()
    first = case.findings["PoorWeightInitialization"]
    is_unusual = gain is not None and not _GAIN[0] <= gain <= _GAIN[1]
    is_definite = "all equal" in first.seen or "that of guessing" in first.seen
    if not (is_unusual or is_definite):
        return ()
    size = () if gain is None else (f"initial weights are {gain:.2g} × as large as He's initialization",)
    return (*found, *(size if is_unusual else ()), case.describe_loss())


def _dead(case: Case) -> tuple[str, ...]:
    # A signal that fades from layer to layer silences many units on its way, but leaves a gradient.
    if case.alarms("VanishingGradient") and not case.alarms("AllZero"):
        return ()
    return _before_any_update(case, "DeadRelu")


def _saturated(case: Case) -> tuple[str, ...]:
    return _before_any_update(case, "SaturatedActivation")


def _before_any_update(case: Case, rule: str) -> tuple[str, ...]:
    """The rule's evidence, if it holds since the first forward pass, which no step has changed yet."""
    found = case.alarms(rule)
    if not found or found[0].step != 0 or case.has_learned:
        return ()
    return (*case.seen(rule), case.describe_loss())


def _large_steps(case: Case) -> tuple[str, ...]:
    trouble = case.seen("ExplodingTensor", "LossNotDecreasing", "WeightUpdateRatio", "DeadRelu")
    update = case.update
    if case.has_learned or update is None or not (update > _LARGE_UPDATE or not isfinite(update)):
        return ()
    lr = case.facts.hyperparameters.get("lr")
    given = "" if lr is None else f" at lr={lr:g}"
    return (f"a step changes the median layer's weights by up to {update:.2g} times their size{given}", *trouble)


def _small_steps(case: Case) -> tuple[str, ...]:
    update = case.update
    if case.has_learned or update is None or not update < _SMALL_UPDATE:
        return ()
    if not case.alarms("LossNotDecreasing", "UnchangedTensor", "WeightUpdateRatio"):
        return ()
    if case.alarms("VanishingGradient"):
        return ()
    lr = case.facts.hyperparameters.get("lr")
    given = "" if lr is None else f" at lr={lr:g}"
    return (
        f"a step changes the median layer's weights by at most {update:.2g} of their size{given}; usual is 0.001",
        case.describe_loss(),
    )


def _vanishing(case: Case) -> tuple[str, ...]:
    if case.has_learned:
        return ()
    return case.seen("VanishingGradient") and (*case.seen("VanishingGradient"), case.describe_loss())


def _leak(case: Case) -> tuple[str, ...]:
    total = sum(case.facts.photos.get("validation", ()))
    leaked = case.facts.num_leaked
    if not total or leaked <= _MAX_LEAKED * total:
        return ()
    return (f"{leaked:,} of {total:,} validation photos have the same bytes as a training photo",)


def _imbalance(case: Case) -> tuple[str, ...]:
    return case.seen("ClassImbalance")


def _statistics(case: Case) -> tuple[str, ...]:
    """Whether validation gives every photo about the same logits, though those of training batches differ."""
    found, chance = case.seen("ValidationAtChance"), case.facts.chance_loss
    losses = [loss for _, loss in case.curves.validation]
    if not (found and losses and chance and case.facts.has_normalization and case.has_learned):
        return ()
    if abs(losses[-1] - chance) > _NEAR_CHANCE * chance:
        return ()
    return (*found, f"the validation loss is {losses[-1]:.4g}, that of guessing {chance:.4g}", case.describe_loss())


def _labels(case: Case) -> tuple[str, ...]:
    found = case.seen("ValidationAtChance")
    counts = case.facts.photos.get("train", ())
    # So few photos are memorized, whether their labels are right or not.
    if counts and sum(counts) < _MIN_PER_CLASS * len(counts) and case.alarms("Overfit"):
        return ()
    if not found and not case.has_learned and case.alarms("LossNotDecreasing"):
        found = ("weights, steps and gradients are of the usual size", case.describe_loss())
    return found


def _memorizing(case: Case) -> tuple[str, ...]:
    found = case.seen("Overfit")
    counts = case.facts.photos.get("train")
    return found and (*found, *((f"{sum(counts):,} training photos",) if counts else ()))


_CAUSES = (
    _Cause(
        "input",
        "The photos show nothing",
        _input,
        "look at the photos: a camera's cap, a failed download or conversion; remove these photos",
    ),
    _Cause(
        "initialization",
        "The initial weights do not let the model learn",
        _initialization,
        "pretrained=true; check the weights in the channel that they come from; " + NORMALIZED,
    ),
    _Cause(
        "dead ReLUs",
        "Most ReLUs are dead from the first step on",
        _dead,
        "pretrained=true; check the biases of the weights in the channel that they come from",
    ),
    _Cause(
        "saturation",
        "Activations are saturated from the first step on",
        _saturated,
        "pretrained=true; check the biases of the weights in the channel that they come from",
    ),
    _Cause("lr too high", "The learning rate is too high", _large_steps, "a smaller lr; warmup_epochs=1"),
    _Cause("lr too low", "The learning rate is too low", _small_steps, "a larger lr"),
    _Cause(
        "vanishing gradients",
        "Gradients vanish before they reach the first layers",
        _vanishing,
        "pretrained=true; " + NORMALIZED,
    ),
    _Cause(
        "leak",
        "Validation photos are also training photos, so the metrics say nothing about others",
        _leak,
        "keep each photo in one channel only: leaks.csv lists them",
    ),
    _Cause(
        "imbalance",
        "The classes are very unequal",
        _imbalance,
        "class_weights=balanced; best_metric=validation:f1; more photos of the rare classes",
    ),
    _Cause(
        "too few steps",
        "The statistics of batch normalization do not fit the weights yet",
        _statistics,
        "more epochs; a larger image_size; a smaller lr; pretrained=true",
    ),
    _Cause(
        "labels",
        "The labels do not follow from the photos",
        _labels,
        "check that the photos in each class folder show this class, in both channels",
    ),
    _Cause(
        "memorizing",
        "The model memorizes its training photos",
        _memorizing,
        "more photos; pretrained=true; augmentation=strong; label_smoothing=0.1; early_stopping_patience=3; "
        "freeze=backbone",
    ),
)

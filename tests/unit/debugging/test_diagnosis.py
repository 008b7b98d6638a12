"""One cause for what the rules found, and advice that the hyperparameters leave open."""

from dataclasses import replace

import pytest

from classifier.contract.findings import Finding, applicable
from classifier.debugging.curves import Curves
from classifier.debugging.diagnosis import diagnose, weigh
from classifier.debugging.facts import NORMALIZED, Facts

FLAT = [(step, 1.1) for step in range(20)]
FALLING = [(step, 1.1 - 0.05 * step) for step in range(20)]


def fired(*rules: str, step: int = 5, severity: str = "warning") -> list[Finding]:
    return [
        Finding.model_validate(
            {"rule": rule, "outcome": "fired", "step": step, "seen": f"{rule} saw", "severity": severity}
        )
        for rule in rules
    ]


def curves(training: list[tuple[int, float]], ratio: float = 1e-3) -> Curves:
    return Curves(training=training, update_ratio={name: [(0, ratio), (1, ratio / 2)] for name in "abc"})


FACTS = Facts(class_names=("a", "b", "c"), hyperparameters={"lr": 0.1}, gain=1.0, photos={"train": (90, 90, 90)})


@pytest.mark.parametrize(
    ("rules", "course", "cause"),
    [
        # What comes first in the chain from photos to metrics explains the rest.
        (("ExplodingTensor", "LossNotDecreasing", "DeadRelu"), curves(FLAT, 3.0), "lr too high"),
        (("LossNotDecreasing", "UnchangedTensor"), curves(FLAT, 1e-7), "lr too low"),
        (("LossNotDecreasing", "CheckInputImages"), curves(FLAT, 3.0), "input"),
        (("VanishingGradient", "LossNotDecreasing"), curves(FLAT), "vanishing gradients"),
        (("Overfit", "ClassImbalance"), curves(FALLING), "imbalance"),
        (("Overfit", "ValidationAtChance"), curves(FALLING), "labels"),
        (("Overfit",), curves(FALLING), "memorizing"),
        (("LossNotDecreasing",), curves(FLAT), "labels"),
        # A large step does no harm where the loss falls.
        (("Overfit",), curves(FALLING, 3.0), "memorizing"),
        (("StalledTrainingRule",), curves(FALLING), "StalledTrainingRule"),
    ],
)
def test_first_cause_that_fits_is_the_diagnosis(rules: tuple[str, ...], course: Curves, cause: str) -> None:
    found = diagnose(fired(*rules), FACTS, course)
    assert found is not None
    assert found.cause == cause
    assert found.evidence
    assert set(found.rules) == set(rules)


def test_dead_units_are_the_cause_only_before_the_first_update() -> None:
    rules = ("DeadRelu", "LossNotDecreasing")
    causes = [diagnose(fired(*rules, step=step), FACTS, curves(FLAT, 3.0)) for step in (0, 1)]
    assert [one and one.cause for one in causes] == ["dead ReLUs", "lr too high"]
    fading = diagnose(fired("DeadRelu", "VanishingGradient", step=0), FACTS, curves(FLAT))
    assert fading is not None
    assert fading.cause == "vanishing gradients"


def test_initial_weights_are_the_cause_if_their_size_is_unusual() -> None:
    findings = fired("PoorWeightInitialization", "LossNotDecreasing", "VanishingGradient")
    causes = [
        diagnose(findings, FACTS.model_copy(update={"gain": gain}), curves(FLAT, 0.3)) for gain in (0.1, 1.0, 6.0)
    ]
    assert [one and one.cause for one in causes] == ["initialization", "lr too high", "initialization"]


@pytest.mark.parametrize(("loss", "cause"), [(1.1, "too few steps"), (2.5, "labels")])
def test_validation_that_guesses_alike_for_all_photos_is_no_fault_of_the_labels(loss: float, cause: str) -> None:
    facts = FACTS.model_copy(update={"has_normalization": True})
    found = diagnose(fired("ValidationAtChance"), facts, replace(curves(FALLING), validation=[(19, loss)]))
    assert found is not None
    assert found.cause == cause


def test_hints_and_what_is_resolved_are_no_diagnosis() -> None:
    resolved = [one.model_copy(update={"outcome": "resolved"}) for one in fired("VanishingGradient")]
    assert diagnose([*resolved, *fired("LossPlateau", severity="hint")], FACTS, curves(FALLING)) is None


def test_leak_is_a_diagnosis_from_a_tenth_of_the_validation_photos_on() -> None:
    facts = [Facts(photos={"validation": (10, 10)}, num_leaked=number) for number in (2, 3)]
    causes = [diagnose([], one, curves(FALLING)) for one in facts]
    assert [one and one.cause for one in causes] == [None, "leak"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, f"pretrained=true; warmup_epochs=1; freeze=backbone; a smaller lr; {NORMALIZED}"),
        ({"pretrained": True, "warmup_epochs": 1.5, "freeze": "backbone", NORMALIZED: True}, "a smaller lr"),
        ({"pretrained": False, "warmup_epochs": 0.5, "freeze": "none"}, None),
    ],
)
def test_advice_leaves_out_what_is_set(given: dict[str, object], expected: str | None) -> None:
    advice = f"pretrained=true; warmup_epochs=1; freeze=backbone; a smaller lr; {NORMALIZED}"
    assert applicable(advice, given) == (advice if expected is None else expected)


def test_dead_units_are_a_hint_where_the_loss_falls() -> None:
    found = [weigh(fired("DeadRelu"), FACTS, curves(course))[0].is_alarm for course in (FLAT, FALLING)]
    assert found == [True, False]


def test_few_photos_are_memorized_whatever_their_labels() -> None:
    facts = FACTS.model_copy(update={"photos": {"train": (7, 7, 6)}})
    found = diagnose(fired("Overfit", "ValidationAtChance"), facts, curves(FALLING))
    assert found is not None
    assert found.cause == "memorizing"

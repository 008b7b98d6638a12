"""The rules on the loss curve."""

import math

import pytest

from classifier.contract.findings import Finding
from classifier.debugging.curve import Curve, read_curve
from support.debugged import Run

FALLING = [(step, 2 * math.exp(-step / 30)) for step in range(100)]
EPOCHS = [(step, 2 * math.exp(-step / 30)) for step in range(9, 100, 10)]


def read(training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> dict[str, Finding]:
    return {finding.rule: finding for finding in read_curve(Curve(training, validation))}


def test_no_rule_fires_on_a_falling_curve() -> None:
    assert {finding.outcome for finding in read(FALLING, EPOCHS).values()} == {"quiet"}


def test_rules_are_skipped_on_a_short_curve() -> None:
    assert {finding.outcome for finding in read(FALLING[:5], EPOCHS[:2]).values()} == {"skipped"}


def test_spike_is_reported_at_its_step() -> None:
    curve = [(step, 9.0 if step == 50 else value) for step, value in FALLING]
    assert read(curve, EPOCHS)["LossSpike"].step == 50


def test_noise_is_reported() -> None:
    curve = [(step, 1.0 + (-1) ** step * 0.6) for step in range(100)]
    assert read(curve, EPOCHS)["NoisyLoss"].outcome == "fired"


def test_plateau_is_reported_at_its_first_step() -> None:
    validation = [(step, max(value, 0.8)) for step, value in EPOCHS]
    finding = read(FALLING, validation)["LossPlateau"]
    assert (finding.outcome, finding.step) == ("fired", 69)


def test_divergence_is_reported_at_its_first_step() -> None:
    validation = [(step, 1.0 + abs(step - 39) / 50) for step, _ in EPOCHS]
    finding = read(FALLING, validation)["LossDivergence"]
    assert (finding.outcome, finding.step) == ("fired", 39)


def test_underfitting_is_reported() -> None:
    assert read([(step, 2 - step / 1000) for step in range(100)], EPOCHS)["Underfit"].outcome == "fired"


@pytest.mark.parametrize("rule", ["LossSpike", "NoisyLoss", "LossPlateau", "LossDivergence", "Underfit"])
def test_no_rule_fires_on_a_real_healthy_training(rule: str, healthy: Run) -> None:
    assert healthy.findings[rule].outcome == "quiet"


def test_divergence_is_reported_in_a_real_training_on_too_few_points(memorizing: Run) -> None:
    assert memorizing.findings["LossDivergence"].outcome == "fired"

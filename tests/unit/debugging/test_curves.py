"""Curves read from recorded tensors, whose values are given, and the rules on the loss curve."""

import math
from pathlib import Path

import numpy as np
import pytest

from classifier.contract.findings import Finding
from classifier.debugging.curves import Curves, judge_losses, read_curves
from classifier.debugging.rules.losses import num_photos_at
from classifier.debugging.tensors import Tensors
from support.debugged import Run, record

LOSS, LABELS = "CrossEntropyLoss_output_0", "CrossEntropyLoss_input_1"
FALLING = [(step, 2 * math.exp(-step / 30)) for step in range(100)]
EPOCHS = [(step, 2 * math.exp(-step / 30)) for step in range(9, 100, 10)]


def test_validation_loss_is_weighted_by_batch_size(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        [
            ("train", {LOSS: 2.0}),
            ("train", {LOSS: 1.5}),
            ("validation", {LOSS: 1.0, LABELS: np.zeros(3, dtype=np.int64)}),
            ("validation", {LOSS: 5.0, LABELS: np.zeros(1, dtype=np.int64)}),
            ("train", {LOSS: 1.0}),
            ("validation", {LOSS: 4.0, LABELS: np.zeros(2, dtype=np.int64)}),
        ],
    )
    curves = read_curves(Tensors.of(run.trial))
    assert curves.training == [(0, 2.0), (1, 1.5), (2, 1.0)]
    assert curves.validation == [(1, 2.0), (2, 4.0)]


def test_batches_without_labels_have_equal_weights(tmp_path: Path) -> None:
    run = record(tmp_path, [("train", {LOSS: 2.0}), ("validation", {LOSS: 1.0}), ("validation", {LOSS: 5.0})])
    tensors = Tensors.of(run.trial)
    assert num_photos_at(tensors, tensors.steps()[1]) == 1
    assert read_curves(tensors).validation == [(0, 3.0)]


def test_curves_of_layers_are_norms_and_update_ratios(tmp_path: Path) -> None:
    steps = [
        {"gradient/Net_fc.weight": [[3.0, 4.0]], "gradient/Net_fc.bias": [1.0], "update_ratio/Net_fc": 0.125},
        {"gradient/Net_fc.weight": [[0.0, 2.0]], "gradient/Net_fc.bias": [1.0], "update_ratio/Net_fc": 0.25},
    ]
    curves = read_curves(Tensors.of(record(tmp_path, [("train", values) for values in steps]).trial))
    assert curves.gradient_norm == {"fc": [(0, pytest.approx(5.0)), (1, pytest.approx(2.0))]}
    assert curves.update_ratio == {"fc": [(0, 0.125), (1, 0.25)]}


def read(training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> dict[str, Finding]:
    return {finding.rule: finding for finding in judge_losses(Curves(training, validation))}


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

"""Defaults of the rules' parameters, pinned by recorded tensors just below and just above each threshold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier.callbacks import Mode
from support.debugged import judge, record, record_losses

LABELS, LOGITS = "CrossEntropyLoss_input_1", "CrossEntropyLoss_input_0"


def training(*parts: tuple[int, float]) -> list[tuple[Mode, float]]:
    """Training losses, from (number of steps, loss)."""
    return [("train", loss) for count, loss in parts for _ in range(count)]


def epochs(*pairs: tuple[float, float]) -> list[tuple[Mode, float]]:
    """One step of training and one of validation per epoch, from (training loss, validation loss)."""
    modes: tuple[Mode, Mode] = ("train", "validation")
    return [step for pair in pairs for step in zip(modes, pair, strict=True)]


@pytest.mark.parametrize(
    ("rule", "losses", "step"),
    [
        # Two windows of 10 losses that are 5 % above the lowest.
        ("LossNotDecreasing", training((10, 1.0), (20, 1.06)), 29),
        ("LossNotDecreasing", training((10, 1.0), (20, 1.04)), None),
        ("LossNotDecreasing", training((10, 1.0), (10, 1.06)), None),
        # A mean of 50 losses that is less than 0.1 % below that of the 50 before.
        ("LossNotDecreasing", training((50, 1.0), (50, 0.9995)), 99),
        ("LossNotDecreasing", training((50, 1.0), (50, 0.9985)), None),
        # Two validation losses in a row that are 10 % above the training loss.
        ("Overfit", epochs((1.0, 1.12), (1.0, 1.12)), 1),
        ("Overfit", epochs((1.0, 1.08), (1.0, 1.08), (1.0, 1.08)), None),
        ("Overfit", epochs((1.0, 1.12), (1.0, 1.0), (1.0, 1.12)), None),
        # Five epochs in which the training loss does not fall by 0.01, or ten of the validation loss.
        ("Overtraining", epochs(*[(1.0, 1.0 - 0.02 * epoch) for epoch in range(6)]), 5),
        ("Overtraining", epochs(*[(1.0, 1.0 - 0.02 * epoch) for epoch in range(5)]), None),
        ("Overtraining", epochs(*[(2.0 - 0.02 * epoch, 1.0) for epoch in range(11)]), 10),
        ("Overtraining", epochs(*[(2.0 - 0.02 * epoch, 1.0) for epoch in range(10)]), None),
        ("Overtraining", epochs(*[(2.0 - 0.012 * epoch, 1.0) for epoch in range(10)]), None),
        ("Overtraining", epochs(*[(2.0 - 0.0015 * epoch, 1.0) for epoch in range(6)]), 5),
    ],
)
def test_thresholds_of_rules_on_losses(
    rule: str, losses: list[tuple[Mode, float]], step: int | None, tmp_path: Path
) -> None:
    finding = judge(record_losses(tmp_path, losses), rule)
    assert finding.outcome == ("quiet" if step is None else "fired"), finding.seen
    assert finding.step == step


@pytest.mark.parametrize(
    ("rule", "name", "value", "outcome"),
    [
        ("VanishingGradient", "gradient/Net_fc.weight", [[0.9e-7, -0.9e-7]], "fired"),
        ("VanishingGradient", "gradient/Net_fc.weight", [[1.1e-7, -1.1e-7]], "quiet"),
        ("WeightUpdateRatio", "update_ratio/Net_fc", 10.1, "fired"),
        ("WeightUpdateRatio", "update_ratio/Net_fc", 9.9, "quiet"),
        ("WeightUpdateRatio", "update_ratio/Net_fc", 1.1e-8, "quiet"),
        ("WeightUpdateRatio", "update_ratio/Net_fc", 0.9e-8, "fired"),
        # A unit is dead below 1 % of the inputs, and a layer if over 50 % of its units are.
        ("DeadRelu", "activity/relu_output_0", [0.009, 0.009, 0.5], "fired"),
        ("DeadRelu", "activity/relu_output_0", [0.011, 0.011, 0.5], "quiet"),
        ("DeadRelu", "activity/relu_output_0", [0.009, 0.009, 0.5, 0.5], "quiet"),
        ("AllZero", "Net_fc.weight", [[0.0, 0.0]], "fired"),
        ("AllZero", "Net_fc.weight", [[0.0, 1e-30]], "quiet"),
    ],
)
def test_thresholds_of_rules_on_single_tensors(rule: str, name: str, value: Any, outcome: str, tmp_path: Path) -> None:
    run = record(tmp_path, [("train", {name: np.array(value, dtype=np.float32)})])
    assert judge(run, rule).outcome == outcome


def classified(truth: list[int], predicted: list[int]) -> dict[str, np.ndarray]:
    """Labels and logits of a batch."""
    return {LABELS: np.array(truth), LOGITS: np.eye(3, dtype=np.float32)[predicted]}


@pytest.mark.parametrize(
    ("labels", "num_missed", "outcome"),
    [
        # One class has over 10 times as many labels as another, in at least 500.
        ([0] * 460 + [1] * 45, 0, "fired"),
        ([0] * 455 + [1] * 46, 0, "quiet"),
        ([0] * 450 + [1] * 44, 0, "skipped"),
        # Over 70 % of a class with less than half the mean number of labels are misclassified.
        ([0] * 450 + [1] * 50, 36, "fired"),
        ([0] * 450 + [1] * 50, 34, "quiet"),
    ],
)
def test_thresholds_of_class_imbalance(labels: list[int], num_missed: int, outcome: str, tmp_path: Path) -> None:
    predicted = [*labels[: len(labels) - num_missed], *([0] * num_missed)]
    run = record(tmp_path, [("train", classified(labels, predicted))])
    assert judge(run, "ClassImbalance").outcome == outcome


@pytest.mark.parametrize(
    ("predicted", "outcome"),
    [
        # Over 10 % of a class are taken for another, or under 90 % of it are correct.
        ([0] * 89 + [1] * 11, "fired"),
        ([0] * 90 + [1] * 10, "quiet"),
        ([0] * 89 + [1] * 6 + [2] * 5, "fired"),
    ],
)
def test_thresholds_of_confusion(predicted: list[int], outcome: str, tmp_path: Path) -> None:
    batch = classified([0] * 100, predicted)
    run = record(tmp_path, [("validation", batch)])
    finding = judge(run, "Confusion", labels=LABELS, predictions=LOGITS)
    assert finding.outcome == outcome

"""Defaults of the rules' parameters, pinned by recorded tensors just below and just above each threshold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier.callbacks import Mode
from classifier.debugging.facts import Facts
from classifier.debugging.rules.inputs import DEVIATIONS, MEANS
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
        # Two windows of 10 losses that are 5 % above the lowest, and a tenth of the fall.
        ("LossNotDecreasing", training((10, 1.2), (10, 1.0), (20, 1.06)), 39),
        ("LossNotDecreasing", training((10, 1.2), (10, 1.0), (20, 1.04)), None),
        ("LossNotDecreasing", training((10, 1.2), (10, 1.0), (10, 1.06)), None),
        ("LossNotDecreasing", training((10, 2.0), (10, 1.0), (20, 1.09)), None),
        # A mean of 10 losses that is less than 0.1 % below that of the first 10: from 20 losses on.
        ("LossNotDecreasing", training((10, 1.0), (10, 0.9995)), 19),
        ("LossNotDecreasing", training((10, 1.0), (10, 0.9985)), None),
        # A loss that fell and then stays is no fault.
        ("LossNotDecreasing", training((10, 2.0), (200, 1.0)), None),
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
        ("ExplodingTensor", "Net_fc.weight", [[1.1e10, 0.0]], "fired"),
        ("ExplodingTensor", "Net_fc.weight", [[-0.9e10, 0.0]], "quiet"),
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
    ("labels", "outcome"),
    [
        # One class has over 10 times as many labels as another, in at least 500.
        ([0] * 460 + [1] * 45, "fired"),
        ([0] * 455 + [1] * 46, "quiet"),
        ([0] * 450 + [1] * 44, "skipped"),
    ],
)
def test_thresholds_of_class_imbalance(labels: list[int], outcome: str, tmp_path: Path) -> None:
    run = record(tmp_path, [("train", classified(labels, labels))])
    assert judge(run, "ClassImbalance").outcome == outcome


@pytest.mark.parametrize(
    ("num_photos", "num_missed", "outcome"),
    [
        # Over 70 % of a class with less than half the mean number of photos are misclassified, of at least 5.
        (50, 36, "fired"),
        (50, 34, "quiet"),
        (4, 4, "quiet"),
    ],
)
def test_thresholds_of_mispredictions(num_photos: int, num_missed: int, outcome: str, tmp_path: Path) -> None:
    labels, truth = [0] * 450 + [1] * 50, [0] * 100 + [1] * num_photos
    predicted = [*truth[: len(truth) - num_missed], *([0] * num_missed)]
    run = record(tmp_path, [("train", classified(labels, labels)), ("validation", classified(truth, predicted))])
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


def test_confusion_is_not_judged_on_few_photos(tmp_path: Path) -> None:
    run = record(tmp_path, [("validation", classified([0] * 12 + [1] * 12, [1] * 2 + [0] * 10 + [1] * 12))])
    assert judge(run, "Confusion", labels=LABELS, predictions=LOGITS).outcome == "skipped"


def test_confusion_is_judged_on_the_matrix_that_the_report_shows(tmp_path: Path) -> None:
    run = record(tmp_path, [("validation", classified([0] * 100, [1] * 100))])
    Facts(class_names=("a", "b"), confusion=((0, 0, 95), (0, 1, 5), (1, 1, 40)), judged_on="test").write(run.folder)
    assert judge(run, "Confusion", labels=LABELS, predictions=LOGITS).outcome == "quiet"


def test_imbalance_is_that_of_the_training_photos(tmp_path: Path) -> None:
    """The labels of saved steps may all be of one class: validation is in the order of the folders."""
    steps: list[tuple[Mode, dict[str, Any]]] = [
        ("train", classified([0, 1], [0, 1])),
        ("validation", classified([0] * 600, [0] * 600)),
    ]
    balanced, unequal = (record(tmp_path / name, steps) for name in ("balanced", "unequal"))
    Facts(photos={"train": (330, 123)}).write(balanced.folder)
    Facts(photos={"train": (84, 2)}).write(unequal.folder)
    assert judge(balanced, "ClassImbalance").outcome == "quiet"
    found = judge(unequal, "ClassImbalance")
    assert (found.outcome, found.step) == ("fired", 0)
    assert "42 times as many training photos" in found.seen


def test_verdict_has_a_history_and_what_is_resolved_is_no_alarm(tmp_path: Path) -> None:
    values = (50.0, 20.0, 1.0, 30.0, 0.1, 0.1)
    run = record(tmp_path, [("train", {"update_ratio/Net_fc": value}) for value in values])
    found = judge(run, "WeightUpdateRatio")
    assert (found.outcome, found.is_alarm, found.num_fired, found.num_judged) == ("resolved", False, 3, 6)
    assert found.history() == "fired 3 of 6 times, first at step 0, last at step 3, resolved at step 4"


@pytest.mark.parametrize(
    ("validation", "accuracies", "outcome"),
    [
        # Near 0 a ratio means nothing; an excess matters where the accuracy lags or validation has become worse.
        ((0.2, 0.06, 0.06), (1.0, 0.99), "quiet"),
        ((0.5, 0.5, 0.5), (1.0, 0.95), "quiet"),
        ((0.5, 0.5, 0.5), (1.0, 0.75), "fired"),
        ((0.5, 0.7, 0.9), (1.0, 0.95), "fired"),
    ],
)
def test_overfit_needs_worse_validation(
    validation: tuple[float, ...], accuracies: tuple[float, float], outcome: str, tmp_path: Path
) -> None:
    steps: list[tuple[Mode, dict[str, Any]]] = []
    modes: tuple[Mode, Mode] = ("train", "validation")
    for loss in validation:
        for mode, value, accuracy in zip(modes, (0.01, loss), accuracies, strict=True):
            missed = round(100 * (1 - accuracy))
            photos = classified([0] * 100, [1] * missed + [0] * (100 - missed))
            steps.append((mode, {"CrossEntropyLoss_output_0": value, **photos}))
    assert judge(record(tmp_path, steps), "Overfit").outcome == outcome


@pytest.mark.parametrize(
    ("means", "deviations", "outcome"),
    [
        ([0.0] * 8, [0.0] * 8, "fired"),
        ([0.1 * n for n in range(8)], [0.0, 0.0, *[0.2] * 6], "fired"),
        ([0.4] * 8, [0.2] * 8, "fired"),
        # On white ground: AWS's threshold of the mean says nothing of photos that the container normalizes.
        ([0.9 + 0.01 * n for n in range(8)], [0.1] * 8, "quiet"),
    ],
)
def test_photos_without_content_are_found(
    means: list[float], deviations: list[float], outcome: str, tmp_path: Path
) -> None:
    values = {MEANS: np.array(means, dtype=np.float32), DEVIATIONS: np.array(deviations, dtype=np.float32)}
    assert judge(record(tmp_path, [("train", values)]), "CheckInputImages").outcome == outcome


def test_images_that_are_not_normalized_are_found_by_awss_parameters(tmp_path: Path) -> None:
    run = record(tmp_path, [("train", {"hybridsequential0_input_0": np.full((500, 3, 2, 2), 0.21, dtype=np.float32)})])
    assert judge(run, "CheckInputImages").outcome == "fired"
    assert judge(run, "CheckInputImages", threshold_mean="0.22").outcome == "quiet"
    assert judge(run, "CheckInputImages", threshold_samples="501").outcome == "quiet"

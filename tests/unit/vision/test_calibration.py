"""Temperature scaling: the fitted temperature, the calibration error, and what prevents a fit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.vision.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    obstacle,
    softmax,
)


def drawn(
    temperature: float, *, seed: int = 0, count: int = 4000, num_classes: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=4, size=(count, num_classes)).astype(np.float32)
    thresholds = softmax(logits, temperature).cumsum(axis=1)
    return logits, (generator.random((count, 1)) > thresholds).sum(axis=1).clip(max=num_classes - 1)


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    scaled = torch.from_numpy(logits).double() / temperature
    return torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)).item()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_temperature_of_the_labels_is_recovered(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.1, 10),
    count=st.sampled_from([50, 400]),
    classes=st.integers(2, 9),
)
def test_no_other_temperature_is_more_likely(seed: int, temperature: float, count: int, classes: int) -> None:
    logits, labels = drawn(temperature, seed=seed, count=count, num_classes=classes)
    fitted = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    others = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 60)
    assert loss(logits, labels, fitted) <= min(loss(logits, labels, other) for other in others) + 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_logits_of_any_scale_have_a_temperature_within_the_limits(scale: float) -> None:
    logits, labels = drawn(1.0, count=200)
    fitted = fit_temperature((logits * scale).astype(np.float32), labels)
    assert fitted == (MIN_TEMPERATURE if scale < 1 else MAX_TEMPERATURE)


def test_equal_logits_have_a_temperature_within_the_limits() -> None:
    fitted = fit_temperature(np.zeros((60, 3), np.float32), np.arange(60) % 3)
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_equals_that_of_scikit_learns_curve(seed: int) -> None:
    from sklearn.calibration import calibration_curve  # noqa: PLC0415 - takes a second, in every worker

    logits, labels = drawn(2.0, seed=seed, count=300)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, bins=15, range=(0, 1))[0]
    expected = np.average(np.abs(accuracy - mean), weights=counts[counts > 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_calibration_never_raises_the_error(seed: int) -> None:
    calibration = calibrate(*drawn(1.0, seed=seed, count=100))
    assert calibration.ece_after <= calibration.ece_before
    assert (calibration.temperature == 1) == (calibration.ece_after == calibration.ece_before)


def test_calibration_reduces_the_error_and_keeps_the_labels() -> None:
    logits, labels = drawn(3.0)
    calibration = calibrate(logits, labels)
    assert calibration.num_photos == len(labels)
    assert calibration.ece_before > 0.1
    assert calibration.ece_after < 0.03
    assert (softmax(logits, calibration.temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("few", "49 validation photos, and at least 50 are needed"),
        ("one class", "the validation photos are all of one class"),
        ("nan", "logits of validation photos are not finite"),
        ("infinite", "logits of validation photos are not finite"),
        ("all right", "every validation photo is classified correctly"),
        ("none", ""),
    ],
)
def test_photos_that_determine_no_temperature_have_a_reason(change: str, reason: str) -> None:
    logits, labels = drawn(2.0, count=49 if change == "few" else 50)
    if change == "one class":
        labels[:] = 1
    if change in ("nan", "infinite"):
        logits[7, 2] = np.nan if change == "nan" else np.inf
    if change == "all right":
        labels = logits.argmax(axis=1)
    assert obstacle(logits, labels) == reason

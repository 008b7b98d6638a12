"""Calibration of a model's probabilities by temperature scaling. Imports no torch.

Guo et al. (2017), On Calibration of Modern Neural Networks: the logits are divided by one number, the temperature, that
minimizes the negative log-likelihood of photos that were not trained on. Dividing keeps the order of the logits, so the
predicted labels stay the same.
"""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
# On fewer photos the temperature depends on which photos they are more than on the model.
MIN_PHOTOS = 50
NUM_BINS = 15
_MAX_STEPS = 100
_TOLERANCE = 1e-6

Fraction = Annotated[float, Field(ge=0, le=1)]


class Calibration(BaseModel):
    """The temperature of a model's probabilities, which are softmax(logits / temperature).

    Attributes:
        num_photos: validation photos on which the temperature was fitted.
        ece_before: expected calibration error on the same photos at temperature 1.
        ece_after: the same at ``temperature``.
    """

    model_config = ConfigDict(frozen=True)

    temperature: Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
    num_photos: Annotated[int, Field(ge=1)]
    ece_before: Fraction
    ece_after: Fraction


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of logits (…, num_classes), float64 of the same shape.

    Args:
        temperature: 1 leaves them uncalibrated.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def obstacle(logits: np.ndarray, labels: np.ndarray) -> str:
    """Return why these photos determine no temperature; an empty string if they do.

    Args:
        logits: float32 (N, num_classes).
        labels: class indices, integers (N,).
    """
    if len(labels) < MIN_PHOTOS:
        return f"{len(labels)} validation photos, and at least {MIN_PHOTOS} are needed"
    if len(np.unique(labels)) < 2:
        return "the validation photos are all of one class"
    if not np.isfinite(logits).all():
        return "logits of validation photos are not finite"
    if (logits.argmax(axis=1) == labels).all():
        # The likelihood then grows with ever lower temperatures.
        return "every validation photo is classified correctly"
    return ""


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit the temperature on photos without an obstacle; it stays 1 where the fitted one would raise their error.

    Args:
        logits: float32 (N, num_classes).
        labels: class indices, integers (N,).
    """
    temperature = fit_temperature(logits, labels)
    before = expected_calibration_error(softmax(logits), labels)
    after = expected_calibration_error(softmax(logits, temperature), labels)
    if after > before:
        temperature, after = 1.0, before
    return Calibration(temperature=temperature, num_photos=len(labels), ece_before=before, ece_after=after)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of the highest likelihood, within the limits and to four significant digits.

    The negative log-likelihood is convex in the inverse temperature b, so its slope, mean(E[z] - z_label) under the
    probabilities softmax(b z), changes sign once: Newton's method, with bisection where a step leaves the bracket.

    Args:
        logits: z, finite, (N, num_classes).
        labels: class indices, integers (N,).
    """
    z = logits.astype(np.float64)
    of_labels = z[np.arange(len(labels)), labels]
    low, high, inverse = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE, 1.0
    for _ in range(_MAX_STEPS):
        probabilities = softmax(z, 1 / inverse)
        means = (probabilities * z).sum(axis=1)
        slope = float((means - of_labels).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        curvature = float((probabilities * np.square(z - means[:, None])).sum(axis=1).mean())
        step = inverse - slope / curvature if curvature > 0 else low
        proposal = step if low < step < high else (low + high) / 2
        if abs(proposal - inverse) <= _TOLERANCE * inverse:
            break
        inverse = proposal
    return float(f"{min(max(1 / inverse, MIN_TEMPERATURE), MAX_TEMPERATURE):.4g}")


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy, a fraction to five digits.

    Photos are grouped by the probability of their predicted class into 15 bins of equal width, as in Guo et al.; the
    gaps of the bins are weighted by their numbers of photos.

    Args:
        probabilities: (N, num_classes), N ≥ 1.
        labels: class indices, integers (N,).
    """
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    return round(float(np.abs(np.bincount(bins, gaps, NUM_BINS)).sum() / len(labels)), 5)

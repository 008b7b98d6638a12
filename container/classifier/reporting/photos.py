"""Example predictions for the report: ``mistakes.json``, and thumbnails in ``mistakes/``."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from classifier.errors import ImageError
from classifier.reporting.tables import write_json
from classifier.vision.calibration import softmax
from classifier.vision.images import decode

NUM_WRONG, NUM_RIGHT = 24, 6
_THUMBNAIL_SIDE = 240  # pixels


@dataclass(frozen=True)
class Predictions:
    """Predictions for the photos of a channel, in the channel's order.

    Attributes:
        labels: true classes, integers (N,).
        predicted: predicted classes, integers (N,).
        confidence: calibrated probabilities of the predicted classes, floats (N,).
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray, temperature: float) -> "Predictions":
        """Classify photos by their logits, float32 (N, num_classes)."""
        return cls(labels, logits.argmax(axis=1), softmax(logits, temperature).max(axis=1))


class PhotoFile(Protocol):
    """A photo on disk: its path, and its name relative to the channel."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...


class Examples(NamedTuple):
    """Indices of photos in their channel."""

    wrong: list[int]
    right: list[int]


def select_examples(predictions: Predictions) -> Examples:
    """Select the most confident mistakes, most confident first, and correct predictions spread over the channel."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:NUM_WRONG]
    right = np.flatnonzero(predictions.labels == predictions.predicted)
    spread = right[np.unique(np.linspace(0, len(right) - 1, NUM_RIGHT).round().astype(int))] if len(right) else right
    return Examples(worst.tolist(), spread.tolist())


def write_mistakes(
    folder: Path, channel: str, predictions: Predictions, photos: Sequence[PhotoFile], names: Sequence[str]
) -> None:
    """Write ``mistakes.json`` and the thumbnails. An unreadable photo is listed without a thumbnail.

    Args:
        folder: the job's ``output/data``.
        photos: the photos of the channel, in the order of the predictions.
        names: the display names of the classes.
    """
    shutil.rmtree(folder / "mistakes", ignore_errors=True)
    examples = select_examples(predictions)
    rows = []
    for number, index in enumerate([*examples.wrong, *examples.right], start=1):
        thumbnail = f"mistakes/{number:02}.jpg"
        rows.append(
            {
                "path": photos[index].name,
                "true": names[predictions.labels[index]],
                "predicted": names[predictions.predicted[index]],
                "confidence": round(float(predictions.confidence[index]), 4),
                "right": index in examples.right,
                "thumbnail": thumbnail if _write_thumbnail(photos[index].path, folder / thumbnail) else None,
            }
        )
    num_wrong = int((predictions.labels != predictions.predicted).sum())
    content = {"channel": channel, "num_photos": len(predictions.labels), "num_wrong": num_wrong, "photos": rows}
    write_json(folder / "mistakes.json", content)


def _write_thumbnail(source: Path, target: Path) -> bool:
    try:
        image = decode(source.read_bytes(), cover=_THUMBNAIL_SIDE)
    except (OSError, ImageError):
        return False
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=82)
    return True

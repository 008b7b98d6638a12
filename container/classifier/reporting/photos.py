"""Predictions → the photos worth a look: ``mistakes.json``, and a thumbnail of each in ``mistakes/``."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from classifier.errors import ImageError
from classifier.reporting.tables import write_json
from classifier.vision.images import decode

NUM_WRONG, NUM_RIGHT = 24, 6
_SIDE = 240  # of a thumbnail, in pixels


@dataclass(frozen=True)
class Predictions:
    """What was predicted for each photo of a channel, in its own order: integers (N,), (N,), and float32 (N,)."""

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


class Photo(Protocol):
    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...


class Chosen(NamedTuple):
    """Indices into the channel: the most confident mistakes, worst first; then some right ones, from all over it."""

    wrong: list[int]
    right: list[int]


def choose(predictions: Predictions) -> Chosen:
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:NUM_WRONG]
    right = np.flatnonzero(predictions.labels == predictions.predicted)
    spread = right[np.unique(np.linspace(0, len(right) - 1, NUM_RIGHT).round().astype(int))] if len(right) else right
    return Chosen(worst.tolist(), spread.tolist())


def write_mistakes(
    folder: Path, channel: str, predictions: Predictions, photos: Sequence[Photo], names: Sequence[str]
) -> None:
    """``photos`` in the predictions' order. A photo that can't be read is listed without a thumbnail."""
    shutil.rmtree(folder / "mistakes", ignore_errors=True)
    chosen = choose(predictions)
    rows = []
    for number, index in enumerate([*chosen.wrong, *chosen.right], start=1):
        thumbnail = f"mistakes/{number:02}.jpg"
        rows.append(
            {
                "path": photos[index].name,
                "true": names[predictions.labels[index]],
                "predicted": names[predictions.predicted[index]],
                "confidence": round(float(predictions.confidence[index]), 4),
                "right": index in chosen.right,
                "thumbnail": thumbnail if _write_thumbnail(photos[index].path, folder / thumbnail) else None,
            }
        )
    num_wrong = int((predictions.labels != predictions.predicted).sum())
    content = {"channel": channel, "num_photos": len(predictions.labels), "num_wrong": num_wrong, "photos": rows}
    write_json(folder / "mistakes.json", content)


def _write_thumbnail(source: Path, target: Path) -> bool:
    try:
        image = decode(source.read_bytes(), cover=_SIDE)
    except (OSError, ImageError):
        return False
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=82)
    return True

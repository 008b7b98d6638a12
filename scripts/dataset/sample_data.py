"""Sample data: scikit-learn's 1,797 handwritten digits as channels of PNG class folders."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_SCALE = 4  # from 8 × 8 to 32 × 32 pixels
_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def write_digits(folder: Path) -> None:
    """Write ``train/``, ``validation/`` and ``test/`` with ten class folders each; the split is always the same.

    The folder appears only when it is complete.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 (takes about a second, and most commands do not need it)

    digits: Any = load_digits()
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    order = np.random.default_rng(0).permutation(len(digits.target))
    ends = np.cumsum([round(share * len(order)) for share in _SHARES.values()])[:-1]
    for channel, indices in zip(_SHARES, np.split(order, ends), strict=True):
        for index in indices:
            _write_digit(unfinished / channel / str(digits.target[index]) / f"{index:04}.png", digits.images[index])
    unfinished.rename(folder)


def _write_digit(path: Path, levels: np.ndarray) -> None:
    """Write grey levels, float (8, 8) from 0 to 16, white on black, as a PNG of 32 × 32 pixels, dark on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ink = Image.fromarray((255 - levels * (255 / 16)).round().astype(np.uint8))
    ink.resize((ink.width * _SCALE, ink.height * _SCALE), Image.Resampling.BICUBIC).save(path)

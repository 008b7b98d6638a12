"""scikit-learn's 1,797 real handwritten digits as channels of PNG class folders."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_SCALE = 4  # 8 × 8 grey levels become 32 × 32 pixels
_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def write_digits(folder: Path) -> None:
    """Write ``train/``, ``validation/`` and ``test/``, ten class folders each; always the same photos in each."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (takes a second, and most commands do without)

    digits: Any = load_digits()
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    order = np.random.default_rng(0).permutation(len(digits.target))
    ends = np.cumsum([round(share * len(order)) for share in _SHARES.values()])[:-1]
    for channel, chosen in zip(_SHARES, np.split(order, ends), strict=True):
        for index in chosen:
            _write_digit(unfinished / channel / str(digits.target[index]) / f"{index:04}.png", digits.images[index])
    unfinished.rename(folder)


def _write_digit(path: Path, levels: np.ndarray) -> None:
    """Grey levels 0–16, white on black → a PNG, dark on white as on paper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ink = Image.fromarray((255 - levels * (255 / 16)).round().astype(np.uint8))
    ink.resize((ink.width * _SCALE, ink.height * _SCALE), Image.Resampling.BICUBIC).save(path)

"""A picture of photos with their predicted labels: green if correct, red if wrong, black if the truth is unknown."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

_TILE, _TITLE, _GAP = 200, 40, 8
_MAX_COLUMNS = 6
_GREEN, _RED, _BLACK, _WHITE = (0, 120, 40), (190, 20, 20), (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Prediction:
    """A photo, its likeliest class, and its true class if its folder is named after one."""

    path: Path
    label: str
    probability: float
    truth: str | None = None

    @property
    def is_correct(self) -> bool | None:
        """Whether the label is the true class, or None if that is unknown."""
        return None if self.truth is None else self.label == self.truth


def draw_grid(predictions: Sequence[Prediction], path: Path) -> None:
    """Write a PNG with all photos, in their order; an unreadable photo is drawn as a grey tile."""
    columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(predictions))))
    rows = math.ceil(len(predictions) / columns)
    width, height = _TILE + _GAP, _TILE + _TITLE + _GAP
    grid = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _WHITE)
    for index, prediction in enumerate(predictions):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        _draw_title(ImageDraw.Draw(grid), prediction, left, top)
        tile = _tile(prediction.path)
        grid.paste(tile, (left + (_TILE - tile.width) // 2, top + _TITLE))
    # Renamed when complete: an interrupted run leaves no truncated picture.
    unfinished = path.with_name(f"{path.name}.part")
    grid.save(unfinished, "PNG")
    unfinished.replace(path)


def _draw_title(draw: ImageDraw.ImageDraw, prediction: Prediction, left: int, top: int) -> None:
    colour = {True: _GREEN, False: _RED, None: _BLACK}[prediction.is_correct]
    lines = [f"{prediction.label} {prediction.probability:.0%}"]
    if prediction.is_correct is False:
        lines.append(f"is {prediction.truth}")
    font = ImageFont.load_default(15)
    for number, line in enumerate(lines):
        draw.text((left, top + number * 19), _fit(line, font), fill=colour, font=font)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a text that is wider than a tile by eliding its middle."""
    while font.getlength(text) > _TILE and len(text) > 4:
        middle = len(text) // 2
        text = f"{text[: middle - 1].rstrip('…')}…{text[middle + 1 :].lstrip('…')}"
    return text


def _tile(path: Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as photo:
            upright = ImageOps.exif_transpose(photo).convert("RGB")
    except (OSError, ValueError):
        return Image.new("RGB", (_TILE, _TILE), (230, 230, 230))
    upright.thumbnail((_TILE, _TILE))
    if max(upright.size) < _TILE:
        upright = ImageOps.contain(upright, (_TILE, _TILE), Image.Resampling.NEAREST)
    return upright

"""Photos and what a model sees in them → one picture: titles green when right, red when wrong, else black."""

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
class Seen:
    """A photo, the likeliest class, and the class that its folder names, where it names one."""

    path: Path
    label: str
    probability: float
    truth: str | None = None

    @property
    def is_right(self) -> bool | None:
        return None if self.truth is None else self.label == self.truth


def draw_grid(photos: Sequence[Seen], path: Path) -> None:
    """Write a PNG of all photos, in their order."""
    columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(photos))))
    rows = math.ceil(len(photos) / columns)
    width, height = _TILE + _GAP, _TILE + _TITLE + _GAP
    grid = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _WHITE)
    for index, seen in enumerate(photos):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        _draw_title(ImageDraw.Draw(grid), seen, left, top)
        tile = _tile(seen.path)
        grid.paste(tile, (left + (_TILE - tile.width) // 2, top + _TITLE))
    # Whole or not at all.
    unfinished = path.with_name(f"{path.name}.part")
    grid.save(unfinished, "PNG")
    unfinished.replace(path)


def _draw_title(draw: ImageDraw.ImageDraw, seen: Seen, left: int, top: int) -> None:
    colour = {True: _GREEN, False: _RED, None: _BLACK}[seen.is_right]
    lines = [f"{seen.label} {seen.probability:.0%}"]
    if seen.is_right is False:
        lines.append(f"is {seen.truth}")
    font = ImageFont.load_default(15)
    for number, line in enumerate(lines):
        draw.text((left, top + number * 19), _fit(line, font), fill=colour, font=font)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its middle left out where it is wider than a tile."""
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

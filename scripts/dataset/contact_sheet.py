"""Contact sheet: one picture with a few photos of every class, to check the labels at a glance."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from classifier.vision.images import decode
from dataset.listing import SPLITS
from dataset.selection import SelectedPhoto, shuffle_key

# Sizes in pixels.
_THUMB, _GAP, _MARGIN = 112, 4, 24
_TITLE = 26
_PHOTOS_PER_CLASS = 6
_MAX_CLASSES = 240
_TEXT, _SECONDARY, _BACKGROUND, _PLACEHOLDER = "#1d1d1f", "#6e6e73", "white", "#f0f0f2"
_CELL_WIDTH = _PHOTOS_PER_CLASS * (_THUMB + _GAP) - _GAP
_CELL_HEIGHT = _TITLE + _THUMB


def draw_contact_sheet(photos: Sequence[SelectedPhoto], paths: Sequence[str], work: Path) -> Image.Image:
    """Draw up to 240 classes in alphabetical order, each with its counts and six photos, preferably of train.

    Args:
        paths: where the photos were written, relative to ``work``.
    """
    by_class: dict[str, list[tuple[SelectedPhoto, str]]] = defaultdict(list)
    for pair in zip(photos, paths, strict=True):
        by_class[pair[0].photo.label].append(pair)
    labels = sorted(by_class)[:_MAX_CLASSES]
    columns = _num_columns(len(labels))
    rows = -(-len(labels) // columns)
    sheet = Image.new("RGB", _sheet_size(columns, rows), _BACKGROUND)
    for number, label in enumerate(labels):
        # Down the columns, as in a dictionary.
        column, row = divmod(number, rows)
        left = _MARGIN + column * (_CELL_WIDTH + _MARGIN)
        top = _MARGIN + row * (_CELL_HEIGHT + _MARGIN)
        _draw_class(sheet, (left, top), label, by_class[label], work)
    if len(by_class) > len(labels):
        note = f"{len(by_class) - len(labels)} more classes are not shown"
        ImageDraw.Draw(sheet).text((_MARGIN, sheet.height - _MARGIN + 4), note, _SECONDARY, _font(13))
    return sheet


def _num_columns(num_classes: int) -> int:
    """Return the number of columns that makes the sheet about square."""
    ratio = (_CELL_HEIGHT + _MARGIN) / (_CELL_WIDTH + _MARGIN)
    return max(1, min(num_classes, round(math.sqrt(num_classes * ratio * 1.2))))


def _sheet_size(columns: int, rows: int) -> tuple[int, int]:
    return columns * (_CELL_WIDTH + _MARGIN) + _MARGIN, rows * (_CELL_HEIGHT + _MARGIN) + _MARGIN


def _draw_class(
    sheet: Image.Image, corner: tuple[int, int], label: str, photos: Sequence[tuple[SelectedPhoto, str]], work: Path
) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    counts = _format_counts(Counter(item.photo.split or "" for item, _ in photos))
    counts_width = draw.textlength(counts, _font(13))
    draw.text((left, top), _shorten(draw, label, _CELL_WIDTH - counts_width - 12), _TEXT, _font(17))
    draw.text((left + _CELL_WIDTH - counts_width, top + 3), counts, _SECONDARY, _font(13))
    shown = sorted(photos, key=lambda pair: (pair[0].photo.split != "train", shuffle_key(pair[0], 0)))
    for number in range(_PHOTOS_PER_CLASS):
        box = (left + number * (_THUMB + _GAP), top + _TITLE)
        thumb = _thumb(work / shown[number][1]) if number < len(shown) else _blank()
        sheet.paste(thumb, box)


def _format_counts(num: Mapping[str, int]) -> str:
    return "   ".join(f"{num[split]:,} {split}" for split in SPLITS if num.get(split))


def _thumb(path: Path) -> Image.Image:
    """Return the middle square of a photo."""
    return ImageOps.fit(decode(path.read_bytes(), cover=_THUMB), (_THUMB, _THUMB), Image.Resampling.LANCZOS)


def _blank() -> Image.Image:
    return Image.new("RGB", (_THUMB, _THUMB), _PLACEHOLDER)


def _shorten(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    if draw.textlength(text, _font(17)) <= width:
        return text
    while text and draw.textlength(f"{text}…", _font(17)) > width:
        text = text[:-1]
    return f"{text}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

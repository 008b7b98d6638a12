"""Reports of a preparation: tables for the terminal and in files, and contact sheets.

One contact sheet has a few photos of every class, to check the labels at a glance; another has the pairs of photos that
look alike.
"""

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median_low

from PIL import Image, ImageDraw, ImageFont, ImageOps

from classifier.vision.images import decode
from dataset.defects import KINDS, OUTCOMES, Defect
from dataset.inspection import staging_path
from dataset.listing import SPLITS
from dataset.near_duplicates import NearDuplicates
from dataset.progress import format_amount
from dataset.selection import SelectedPhoto, Selection, shuffle_key

_MAX_ROWS = 40  # of the class table on the terminal
_NUM_LAST_ROWS = 5  # of a longer table
_CLASS_COLUMNS = (
    *("class", "split", "photos", "bytes"),
    *("min_width", "median_width", "max_width", "min_height", "median_height", "max_height"),
    *("left_out", "capped"),
)

# The contact sheet; sizes in pixels.
_MAX_CLASSES, _PHOTOS_PER_CLASS = 240, 6
_THUMB, _GAP, _MARGIN = 112, 4, 24
_TITLE = 26
_CELL_WIDTH = _PHOTOS_PER_CLASS * (_THUMB + _GAP) - _GAP
_CELL_HEIGHT = _TITLE + _THUMB
_MAX_PAIRS, _PAIR_COLUMNS = 240, 4
_PAIR_THUMB = 160
_PAIR_WIDTH, _PAIR_HEIGHT = 2 * _PAIR_THUMB + _GAP, _PAIR_THUMB + _TITLE
_TEXT, _SECONDARY, _BACKGROUND, _PLACEHOLDER = "#1d1d1f", "#6e6e73", "white", "#f0f0f2"


def write_report(folder: Path, selection: Selection, paths: Sequence[str], record: Mapping[str, object]) -> None:
    """Write ``classes.csv``, ``defects.csv`` and ``prepared.json`` into a new folder.

    Args:
        paths: where the photos were written, ``<split>/<class>/<name>``.
        record: the options to keep in ``prepared.json``.
    """
    folder.mkdir()
    _write_csv(folder / "classes.csv", _CLASS_COLUMNS, _class_rows(selection))
    rows = [(d.kind, OUTCOMES[d.action], d.path, d.label, d.split, d.reason) for d in _sort_defects(selection.defects)]
    _write_csv(folder / "defects.csv", ("defect", "done", "path", "class", "split", "reason"), rows)
    splits = Counter(path.partition("/")[0] for path in paths)
    content = {**record, "photos": {name: splits[name] for name in SPLITS if splits[name]}}
    (folder / "prepared.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_near_duplicates(path: Path, pairs: Sequence[NearDuplicates]) -> None:
    """Write ``near_duplicates.csv``: two photos in each row, and in how many of the hash's bits they differ."""
    header = ("group", "distance", "path", "class", "split", "other_path", "other_class", "other_split")
    rows = [(pair.group, pair.distance, *_cells(pair.first), *_cells(pair.second)) for pair in pairs]
    _write_csv(path, header, rows)


def _cells(item: SelectedPhoto) -> tuple[str, str, str]:
    return item.photo.path, item.photo.label, item.photo.split or ""


def _sort_defects(defects: Iterable[Defect]) -> list[Defect]:
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(defects, key=lambda defect: (order[defect.kind], defect.path))


def _class_rows(selection: Selection) -> list[tuple[object, ...]]:
    """Return a row per class and split; dropped photos count in their split, capped ones in a row without split."""
    groups: dict[tuple[str, str], list[SelectedPhoto]] = defaultdict(list)
    for item in selection.photos:
        groups[item.photo.label, item.photo.split or ""].append(item)
    left_out = Counter((d.label, d.split) for d in selection.defects if d.action == "drop" and d.label)
    keys = groups.keys() | left_out.keys() | {(label, "") for label in selection.capped}
    return [
        (
            *(label, split, len(groups[label, split])),
            *_sizes(groups[label, split]),
            *(left_out[label, split], 0 if split else selection.capped[label]),
        )
        for label, split in sorted(keys, key=lambda key: (key[0], _order(key[1])))
    ]


def _order(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _sizes(items: Sequence[SelectedPhoto]) -> tuple[object, ...]:
    if not items:
        return (0, *[""] * 6)
    widths = [item.inspection.width for item in items]
    heights = [item.inspection.height for item in items]
    ranges = (number for sides in (widths, heights) for number in (min(sides), median_low(sides), max(sides)))
    return (sum(item.inspection.size for item in items), *ranges)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def format_summary(selection: Selection) -> str:
    """Format the tables for the terminal: photos by class and split, then defects by kind."""
    parts = [_class_table(selection)]
    if selection.defects:
        parts.append(_defect_table(selection.defects))
    if selection.capped:
        parts.append(f"{selection.capped.total():,} good photos are left out by --max-per-class or --balance")
    return "\n\n".join(parts)


def _class_table(selection: Selection) -> str:
    num = Counter((item.photo.label, item.photo.split) for item in selection.photos)
    left_out = Counter(d.label for d in selection.defects if d.action == "drop")
    splits = [name for name in SPLITS if any(split == name for _, split in num)]
    labels = sorted({label for label, _ in num} | {label for label in left_out if label})
    rows = [(label, [*(num[label, split] for split in splits), left_out[label]]) for label in labels]
    hidden = rows[_MAX_ROWS - _NUM_LAST_ROWS : -_NUM_LAST_ROWS] if len(rows) > _MAX_ROWS else []
    shown = rows if not hidden else [*rows[: _MAX_ROWS - _NUM_LAST_ROWS], *rows[-_NUM_LAST_ROWS:]]
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    size = format_amount(sum(item.inspection.size for item in selection.photos), "B")
    lines = _align(
        [
            ("class", *splits, "left out"),
            *((label, *numbers) for label, numbers in shown),
            (f"{len(labels)} classes, {size}", *totals),
        ]
    )
    if hidden:
        lines.insert(1 + _MAX_ROWS - _NUM_LAST_ROWS, f"… {len(hidden)} more, in classes.csv …")
    return "\n".join(lines)


def _align(rows: Sequence[Sequence[object]]) -> list[str]:
    """Align the first column to the left, and the others, numbers, to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in texts
    ]


def _defect_table(defects: Sequence[Defect]) -> str:
    groups: dict[tuple[str, str], list[Defect]] = defaultdict(list)
    for defect in _sort_defects(defects):
        groups[defect.kind, defect.action].append(defect)
    rows = [(kind, OUTCOMES[action], len(found), found[0]) for (kind, action), found in groups.items()]
    kind_width, outcome_width = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    return "\n".join(
        f"{kind:{kind_width}}  {outcome:{outcome_width}}  {num:>7,}  {'e.g. ' if num > 1 else ''}{d.path}: {d.reason}"
        for kind, outcome, num, d in rows
    )


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


def draw_pairs(pairs: Sequence[NearDuplicates], work: Path) -> Image.Image:
    """Draw up to 240 pairs of photos that look alike, in their order, from the staged files."""
    shown = pairs[:_MAX_PAIRS]
    columns = min(_PAIR_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = columns * (_PAIR_WIDTH + _MARGIN) + _MARGIN, rows * (_PAIR_HEIGHT + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    for number, pair in enumerate(shown):
        row, column = divmod(number, columns)
        left, top = _MARGIN + column * (_PAIR_WIDTH + _MARGIN), _MARGIN + row * (_PAIR_HEIGHT + _MARGIN)
        for item, x in ((pair.first, left), (pair.second, left + _PAIR_THUMB + _GAP)):
            sheet.paste(_thumb(staging_path(work, item.number), _PAIR_THUMB), (x, top))
            caption = f"{item.photo.split or 'left out'}/{item.photo.label}"
            draw = ImageDraw.Draw(sheet)
            draw.text((x, top + _PAIR_THUMB + 4), _shorten(draw, caption, _PAIR_THUMB, 13), _SECONDARY, _font(13))
    if len(pairs) > len(shown):
        note = f"{len(pairs) - len(shown):,} more pairs are in near_duplicates.csv"
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
    draw.text((left, top), _shorten(draw, label, _CELL_WIDTH - counts_width - 12, 17), _TEXT, _font(17))
    draw.text((left + _CELL_WIDTH - counts_width, top + 3), counts, _SECONDARY, _font(13))
    shown = sorted(photos, key=lambda pair: (pair[0].photo.split != "train", shuffle_key(pair[0], 0)))
    for number in range(_PHOTOS_PER_CLASS):
        box = (left + number * (_THUMB + _GAP), top + _TITLE)
        thumb = _thumb(work / shown[number][1]) if number < len(shown) else _blank()
        sheet.paste(thumb, box)


def _format_counts(num: Mapping[str, int]) -> str:
    return "   ".join(f"{num[split]:,} {split}" for split in SPLITS if num.get(split))


def _thumb(path: Path, side: int = _THUMB) -> Image.Image:
    """Return the middle square of a photo."""
    return ImageOps.fit(decode(path.read_bytes(), cover=side), (side, side), Image.Resampling.LANCZOS)


def _blank() -> Image.Image:
    return Image.new("RGB", (_THUMB, _THUMB), _PLACEHOLDER)


def _shorten(draw: ImageDraw.ImageDraw, text: str, width: float, font_size: int) -> str:
    if draw.textlength(text, _font(font_size)) <= width:
        return text
    while text and draw.textlength(f"{text}…", _font(font_size)) > width:
        text = text[:-1]
    return f"{text}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

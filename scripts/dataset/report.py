"""What was found and made: tables for the terminal, ``classes.csv``, ``defects.csv`` and ``prepared.json``."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median_low

from dataset.defects import DONE, KINDS, Defect
from dataset.listing import SPLITS
from dataset.progress import amount
from dataset.selection import Chosen, Selection

_MAX_ROWS = 40


def write_report(folder: Path, selection: Selection, places: Sequence[str], facts: Mapping[str, object]) -> None:
    folder.mkdir()
    _write_csv(folder / "classes.csv", _CLASS_COLUMNS, _class_rows(selection))
    rows = [(d.kind, DONE[d.action], d.place, d.label, d.split, d.reason) for d in sorted_defects(selection.defects)]
    _write_csv(folder / "defects.csv", ("defect", "done", "path", "class", "split", "reason"), rows)
    splits = Counter(place.partition("/")[0] for place in places)
    content = {**facts, "photos": {name: splits[name] for name in SPLITS if splits[name]}}
    (folder / "prepared.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sorted_defects(defects: Iterable[Defect]) -> list[Defect]:
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(defects, key=lambda defect: (order[defect.kind], defect.place))


_CLASS_COLUMNS = (
    *("class", "split", "photos", "bytes"),
    *("min_width", "median_width", "max_width", "min_height", "median_height", "max_height"),
    *("left_out", "capped"),
)


def _class_rows(selection: Selection) -> list[tuple[object, ...]]:
    """A row a class and split that has photos. What was left out counts where it lay; a cap has no split."""
    groups: dict[tuple[str, str], list[Chosen]] = defaultdict(list)
    for item in selection.chosen:
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


def _sizes(items: Sequence[Chosen]) -> tuple[object, ...]:
    if not items:
        return (0, *[""] * 6)
    widths = [item.facts.width for item in items]
    heights = [item.facts.height for item in items]
    ranges = (number for sides in (widths, heights) for number in (min(sides), median_low(sides), max(sides)))
    return (sum(item.facts.size for item in items), *ranges)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def describe(selection: Selection) -> str:
    """The tables for the terminal: photos by class and split, then defects by kind."""
    parts = [_class_table(selection)]
    if selection.defects:
        parts.append(_defect_table(selection.defects))
    if selection.capped:
        parts.append(f"{selection.capped.total():,} good photos are left out by --max-per-class or --balance")
    return "\n\n".join(parts)


def _class_table(selection: Selection) -> str:
    num = Counter((item.photo.label, item.photo.split) for item in selection.chosen)
    left_out = Counter(d.label for d in selection.defects if d.action == "drop")
    splits = [name for name in SPLITS if any(split == name for _, split in num)]
    labels = sorted({label for label, _ in num} | {label for label in left_out if label})
    rows = [(label, [*(num[label, split] for split in splits), left_out[label]]) for label in labels]
    hidden = rows[_MAX_ROWS - 5 : -5] if len(rows) > _MAX_ROWS else []
    shown = rows if not hidden else [*rows[: _MAX_ROWS - 5], *rows[-5:]]
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    size = amount(sum(item.facts.size for item in selection.chosen), "B")
    lines = _align(
        [
            ("class", *splits, "left out"),
            *((label, *numbers) for label, numbers in shown),
            (f"{len(labels)} classes, {size}", *totals),
        ]
    )
    if hidden:
        lines.insert(_MAX_ROWS - 4, f"… {len(hidden)} more, in classes.csv …")
    return "\n".join(lines)


def _align(rows: Sequence[Sequence[object]]) -> list[str]:
    """The first column to the left, the others, numbers, to the right."""
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
    for defect in sorted_defects(defects):
        groups[defect.kind, defect.action].append(defect)
    rows = [(kind, DONE[action], len(found), found[0]) for (kind, action), found in groups.items()]
    kinds, done = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    return "\n".join(
        f"{kind:{kinds}}  {what:{done}}  {number:>7,}  {'such as ' if number > 1 else ''}{first.place}: {first.reason}"
        for kind, what, number, first in rows
    )

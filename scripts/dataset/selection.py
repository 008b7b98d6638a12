"""Selection of the inspected photos: duplicates, caps and balance, and the split into train, validation and test."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

from classifier.errors import DataError
from dataset.defects import Actions, Defect
from dataset.inspection import Inspection
from dataset.listing import SPLITS, Photo


class SelectedPhoto(NamedTuple):
    """A usable photo; ``number`` is its index in the listing."""

    number: int
    photo: Photo
    inspection: Inspection


@dataclass
class Selection:
    """The selected photos, all defects, and per class the number of good photos left out by a cap or by balancing."""

    photos: list[SelectedPhoto]
    defects: list[Defect]
    capped: Counter[str] = field(default_factory=Counter)


def select(photos: Sequence[Photo], inspections: Sequence[Inspection], actions: Actions) -> Selection:
    """Select the usable photos, without misleading copies; ``actions`` can keep more."""
    selection = Selection([], [])
    for number, (photo, inspection) in enumerate(zip(photos, inspections, strict=True)):
        action = _action(inspection, actions)
        if inspection.defect:
            selection.defects.append(_defect(photo, inspection.defect, inspection.reason, action))
        if action != "drop":
            selection.photos.append(SelectedPhoto(number, photo, inspection))
    _resolve_copies(selection, actions)
    return selection


def _action(inspection: Inspection, actions: Actions) -> str:
    if inspection.digest is None:
        return "drop"
    if not inspection.defect:
        return "keep"
    # A photo that lacked its end and was staged nevertheless has been repaired.
    return "repair" if inspection.defect == "truncated" else actions[inspection.defect]


def _defect(photo: Photo, kind: str, reason: str, action: str) -> Defect:
    return Defect(kind, photo.path, reason, action, photo.label, photo.split or "")


def _resolve_copies(selection: Selection, actions: Actions) -> None:
    num = Counter(item.inspection.digest for item in selection.photos)
    groups: dict[bytes | None, list[SelectedPhoto]] = defaultdict(list)
    for item in selection.photos:
        if num[item.inspection.digest] > 1:
            groups[item.inspection.digest].append(item)
    dropped: set[int] = set()
    for copies in groups.values():
        for item, kind, reason in find_copy_defects(copies, "the same bytes as"):
            selection.defects.append(_defect(item.photo, kind, reason, actions[kind]))
            if actions[kind] == "drop":
                dropped.add(item.number)
    selection.photos = [item for item in selection.photos if item.number not in dropped]


def find_copy_defects(copies: Sequence[SelectedPhoto], relation: str) -> list[tuple[SelectedPhoto, str, str]]:
    """Return which of several copies of a photo are defects, of which kind, and why.

    In two classes: all, because the right class is unknown. In two splits: those in the earlier split, so that the
    photos that evaluate a model stay the same. In one split: all but the first.

    Args:
        relation: of one copy to another, such as ``the same bytes as``.
    """
    if len({item.photo.label for item in copies}) > 1:
        return [(item, "conflict", f"{relation} {_name_other_class(item, copies)}") for item in copies]
    last = max((item.photo.split or "" for item in copies), key=_split_rank)
    kept = next(item for item in copies if (item.photo.split or "") == last)
    return [
        (item, "repeat" if item.photo.split == kept.photo.split else "leak", f"{relation} {kept.photo.path}")
        for item in copies
        if item is not kept
    ]


def _split_rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else -1


def _name_other_class(item: SelectedPhoto, copies: Sequence[SelectedPhoto]) -> str:
    other = next(copy for copy in copies if copy.photo.label != item.photo.label)
    more = f" and {len(copies) - 2} more" if len(copies) > 2 else ""
    return f"{other.photo.path}{more}"


def cap(selection: Selection, *, max_per_class: int | None, balance: bool, seed: int) -> None:
    """Limit the photos of every class in each split of the source.

    Args:
        max_per_class: the limit, or None for no limit.
        balance: limit every class to the size of the smallest one in its split.
        seed: selects which photos stay.
    """
    if max_per_class is None and not balance:
        return
    num = Counter((item.photo.split, item.photo.label) for item in selection.photos)
    limits = {split: max_per_class or len(selection.photos) for split, _ in num}
    if balance:
        limits = {name: min(limits[name], *(n for (split, _), n in num.items() if split == name)) for name in limits}
    taken: Counter[tuple[str | None, str]] = Counter()
    kept: set[int] = set()
    for item in sorted(selection.photos, key=lambda item: shuffle_key(item, seed)):
        key = (item.photo.split, item.photo.label)
        taken[key] += 1
        if taken[key] <= limits[item.photo.split]:
            kept.add(item.number)
        else:
            selection.capped[item.photo.label] += 1
    selection.photos = [item for item in selection.photos if item.number in kept]


def shuffle_key(item: SelectedPhoto, seed: int) -> tuple[bytes, str]:
    """Return a sort key that shuffles photos by their own bytes alone, so that adding a photo moves no other."""
    digest = item.inspection.digest
    assert digest is not None, "selected photos have been read"
    return blake2b(digest, key=seed.to_bytes(8, "little", signed=True)).digest(), item.photo.path


def drop_small_classes(selection: Selection, min_per_class: int) -> Mapping[str, int]:
    """Leave out classes with fewer photos than ``min_per_class``, and return the sizes that they had."""
    num = Counter(item.photo.label for item in selection.photos)
    small = {label: count for label, count in num.items() if count < min_per_class}
    selection.photos = [item for item in selection.photos if item.photo.label not in small]
    return small


def split_photos(photos: Sequence[SelectedPhoto], shares: Mapping[str, float], seed: int) -> list[SelectedPhoto]:
    """Assign photos to splits, class by class.

    Copies of the same bytes get the same split, and every class has a photo in every split.

    Args:
        shares: the share of each split but ``train``, which gets the rest: ``{"validation": 0.15, "test": 0.15}``.

    Raises:
        DataError: a class has fewer different photos than there are splits.
    """
    shares = {name: share for name, share in shares.items() if share > 0}
    by_class: dict[str, list[SelectedPhoto]] = defaultdict(list)
    for item in photos:
        by_class[item.photo.label].append(item)
    result: list[SelectedPhoto] = []
    for label in sorted(by_class):
        result += _split_class(label, by_class[label], shares, seed)
    return sorted(result)


def _split_class(
    label: str, photos: list[SelectedPhoto], shares: Mapping[str, float], seed: int
) -> list[SelectedPhoto]:
    shuffled = sorted(photos, key=lambda item: shuffle_key(item, seed))
    groups = [list(group) for _, group in groupby(shuffled, key=lambda item: item.inspection.digest)]
    if len(groups) < len(shares) + 1:
        raise DataError(
            f"class {label!r} has {len(groups)} different photos, too few for {len(shares) + 1} splits: add photos, "
            "leave such classes out with --min-per-class, or make fewer splits with --test 0"
        )
    remaining = len(groups)
    result: list[SelectedPhoto] = []
    for index, (split, share) in enumerate(shares.items()):
        # At least one, and at least one left for each split that follows and for train.
        num = min(max(1, round(share * len(groups))), remaining - (len(shares) - index))
        result += _assign(groups[remaining - num : remaining], split)
        remaining -= num
    return result + _assign(groups[:remaining], "train")


def _assign(groups: Sequence[Sequence[SelectedPhoto]], split: str) -> list[SelectedPhoto]:
    return [item._replace(photo=item.photo._replace(split=split)) for group in groups for item in group]

"""Photos and their facts → those that stay, and in which split. All that is wrong with the others is told."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

from classifier.errors import DataError
from dataset.defects import Actions, Defect
from dataset.inspection import Facts
from dataset.listing import SPLITS, Photo


class Chosen(NamedTuple):
    """A photo that stays; ``number`` is its place in the listing."""

    number: int
    photo: Photo
    facts: Facts


@dataclass
class Selection:
    """``capped`` counts, by class, the good photos that a cap or a balance left out."""

    chosen: list[Chosen]
    defects: list[Defect]
    capped: Counter[str] = field(default_factory=Counter)


def select(photos: Sequence[Photo], facts: Sequence[Facts], actions: Actions) -> Selection:
    """Leave out what can't be used, and of the same bytes those copies that would mislead."""
    selection = Selection([], [])
    for number, (photo, fact) in enumerate(zip(photos, facts, strict=True)):
        action = _action(fact, actions)
        if fact.kind:
            selection.defects.append(_defect(photo, fact.kind, fact.reason, action))
        if action != "drop":
            selection.chosen.append(Chosen(number, photo, fact))
    _settle_copies(selection, actions)
    return selection


def _action(fact: Facts, actions: Actions) -> str:
    if fact.digest is None:
        return "drop"
    if fact.fixed and fact.kind:
        return "repair" if fact.kind == "truncated" else actions[fact.kind]
    return actions[fact.kind] if fact.kind else "keep"


def _defect(photo: Photo, kind: str, reason: str, action: str) -> Defect:
    return Defect(kind, photo.place, reason, action, photo.label, photo.split or "")


def _settle_copies(selection: Selection, actions: Actions) -> None:
    num = Counter(item.facts.digest for item in selection.chosen)
    groups: dict[bytes | None, list[Chosen]] = defaultdict(list)
    for item in selection.chosen:
        if num[item.facts.digest] > 1:
            groups[item.facts.digest].append(item)
    dropped: set[int] = set()
    for copies in groups.values():
        for item, kind, reason in _judge_copies(copies):
            selection.defects.append(_defect(item.photo, kind, reason, actions[kind]))
            if actions[kind] == "drop":
                dropped.add(item.number)
    selection.chosen = [item for item in selection.chosen if item.number not in dropped]


def _judge_copies(copies: Sequence[Chosen]) -> list[tuple[Chosen, str, str]]:
    """Which copies of the same bytes are wrong, and why.

    In two classes: all, for nobody knows which is right. In two splits: those in the earlier split, so that the photos
    that judge a model stay what they were. In one split: all but the first.
    """
    if len({item.photo.label for item in copies}) > 1:
        return [(item, "conflict", _also(item, copies, "label")) for item in copies]
    last = max((item.photo.split or "" for item in copies), key=_rank)
    kept = next(item for item in copies if (item.photo.split or "") == last)
    return [
        (item, "repeat" if item.photo.split == kept.photo.split else "leak", f"the same bytes as {kept.photo.place}")
        for item in copies
        if item is not kept
    ]


def _rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else -1


def _also(item: Chosen, copies: Sequence[Chosen], field: str) -> str:
    other = next(copy for copy in copies if getattr(copy.photo, field) != getattr(item.photo, field))
    more = f" and {len(copies) - 2} more" if len(copies) > 2 else ""
    return f"the same bytes as {other.photo.place}{more}"


def cap(selection: Selection, *, max_per_class: int | None, balance: bool, seed: int) -> None:
    """At most so many photos of a class in each split of the source; balanced: as many as the rarest class has."""
    if max_per_class is None and not balance:
        return
    num = Counter((item.photo.split, item.photo.label) for item in selection.chosen)
    limits = {split: max_per_class or len(selection.chosen) for split, _ in num}
    if balance:
        limits = {name: min(limits[name], *(n for (split, _), n in num.items() if split == name)) for name in limits}
    taken: Counter[tuple[str | None, str]] = Counter()
    kept: set[int] = set()
    for item in sorted(selection.chosen, key=lambda item: lot(item, seed)):
        key = (item.photo.split, item.photo.label)
        taken[key] += 1
        if taken[key] <= limits[item.photo.split]:
            kept.add(item.number)
        else:
            selection.capped[item.photo.label] += 1
    selection.chosen = [item for item in selection.chosen if item.number in kept]


def lot(item: Chosen, seed: int) -> tuple[bytes, str]:
    """A photo's place in a random order that depends on its own bytes alone: others that come or go don't move it."""
    assert item.facts.digest is not None, "what was chosen has been read"
    return blake2b(item.facts.digest, key=seed.to_bytes(8, "little", signed=True)).digest(), item.photo.place


def drop_small_classes(selection: Selection, min_per_class: int) -> Mapping[str, int]:
    """Leave out classes with fewer photos; gives those and what they had."""
    num = Counter(item.photo.label for item in selection.chosen)
    small = {label: count for label, count in num.items() if count < min_per_class}
    selection.chosen = [item for item in selection.chosen if item.photo.label not in small]
    return small


def split_photos(chosen: Sequence[Chosen], shares: Mapping[str, float], seed: int) -> list[Chosen]:
    """Set the shares apart, ``{"validation": 0.15, "test": 0.15}``; the rest is for training.

    Copies of the same bytes stay on one side. Every class has a photo in every split.

    Raises:
        DataError: a class has too few different photos for that.
    """
    shares = {name: share for name, share in shares.items() if share > 0}
    by_class: dict[str, list[Chosen]] = defaultdict(list)
    for item in chosen:
        by_class[item.photo.label].append(item)
    result: list[Chosen] = []
    for label in sorted(by_class):
        result += _split_class(label, by_class[label], shares, seed)
    return sorted(result)


def _split_class(label: str, items: list[Chosen], shares: Mapping[str, float], seed: int) -> list[Chosen]:
    ordered = sorted(items, key=lambda item: lot(item, seed))
    groups = [list(group) for _, group in groupby(ordered, key=lambda item: item.facts.digest)]
    if len(groups) < len(shares) + 1:
        raise DataError(
            f"class {label!r} has {len(groups)} different photos, too few for {len(shares) + 1} splits: add photos, "
            "leave such classes out with --min-per-class, or make fewer splits with --test 0"
        )
    left = len(groups)
    result: list[Chosen] = []
    for place, (split, share) in enumerate(shares.items()):
        # One at least, and one at least left for each split that is still to come, and for training.
        num = min(max(1, round(share * len(groups))), left - (len(shares) - place))
        result += _assign(groups[left - num : left], split)
        left -= num
    return result + _assign(groups[:left], "train")


def _assign(groups: Sequence[Sequence[Chosen]], split: str) -> list[Chosen]:
    return [item._replace(photo=item.photo._replace(split=split)) for group in groups for item in group]

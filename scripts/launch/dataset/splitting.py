"""Photos without splits → train, validation and test: the same shares of every class, and always the same photos."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby

from classifier.errors import DataError
from launch.dataset.selection import Chosen, lot


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

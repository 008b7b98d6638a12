"""Photos that look alike although their bytes differ: copies in another size or quality, shots of the same scene.

Photos are compared by the perceptual hashes of their inspection, each with all others: in blocks of a matrix product,
since the Hamming distance of two rows of ±1 follows from their dot product. 20,000 photos take seconds, and the memory
of a block.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dataset.defects import Defect
from dataset.inspection import HASH_BITS
from dataset.selection import SelectedPhoto, Selection, find_copy_defects

# Bits in which the hashes of near duplicates differ at most. Among 3,053 photos of clothes, pairs of the same scene
# differ in 2 and 38 bits, all others in at least 50; among 1,000 of ImageNet, in more than 76. A copy in another size,
# quality or brightness differs in at most 36, and usually in 2 to 6.
MAX_DISTANCE = 40
_ROWS = 512  # of a block
# Placeholders such as "image not found" are in many classes; two classes that look alike are not unusual.
_MIN_PLACEHOLDER_CLASSES = 3
_MAX_NAMED = 3


class NearDuplicates(NamedTuple):
    """Two photos whose hashes differ in ``distance`` bits; ``group`` numbers the photos that look alike."""

    first: SelectedPhoto
    second: SelectedPhoto
    distance: int
    group: int

    @property
    def is_across_splits(self) -> bool:
        """Whether the photos are in two splits; a photo that is left out is in none."""
        splits = {self.first.photo.split, self.second.photo.split}
        return len(splits) == 2 and None not in splits

    @property
    def is_across_classes(self) -> bool:
        """Whether the photos are in two classes."""
        return self.first.photo.label != self.second.photo.label


def drop_near_duplicates(selection: Selection, pairs: Sequence[NearDuplicates]) -> None:
    """Leave out photos that look like another one, by the rules for copies of the same bytes."""
    dropped: set[int] = set()
    for group in _members(pairs).values():
        for item, _, reason in find_copy_defects([item for _, item in sorted(group.items())], "looks like"):
            path, label, split = item.photo
            selection.defects.append(Defect("near-duplicate", path, reason, "drop", label, split or ""))
            dropped.add(item.number)
    selection.photos = [item for item in selection.photos if item.number not in dropped]


def find_near_duplicates(photos: Sequence[SelectedPhoto]) -> list[NearDuplicates]:
    """Pair every photo that looks like an earlier one with the most similar of these.

    Copies of the same bytes count as one photo.
    """
    if not photos:
        return []
    unique = sorted({item.inspection.digest: item for item in reversed(photos)}.values())
    hashes = [item.inspection.perceptual_hash for item in unique]
    found = _find_closest(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(unique), -1))
    groups = _number_groups([(first, second) for first, second, _ in found])
    return [NearDuplicates(unique[first], unique[second], distance, groups[first]) for first, second, distance in found]


def _find_closest(hashes: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the closest earlier row and the distance of each row that has one within ``MAX_DISTANCE``.

    Args:
        hashes: packed bits, uint8 (N, 32).

    Returns:
        Indices of the earlier row and of the row, and their distance.
    """
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(signs), _ROWS):
        block = signs[start : start + _ROWS]
        products = block @ signs[: start + len(block)].T
        # A row is not compared with itself and those after it.
        products[np.triu_indices(len(block), start, products.shape[1])] = -HASH_BITS
        closest = products.argmax(axis=1)
        distances = (HASH_BITS - products[np.arange(len(block)), closest]) / 2
        for row in np.flatnonzero(distances <= MAX_DISTANCE):
            found.append((int(closest[row]), start + int(row), round(float(distances[row]))))
    return found


def _number_groups(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Number the groups of connected photos from 1, in the order of their first photos.

    Args:
        pairs: an earlier photo and a later one, each of which is the later one of a single pair, in their order.
    """
    roots: dict[int, int] = {}
    for first, second in pairs:
        roots[second] = roots.setdefault(first, first)
    numbers = {root: number for number, root in enumerate(sorted(set(roots.values())), 1)}
    return {index: numbers[root] for index, root in roots.items()}


def update_splits(pairs: Sequence[NearDuplicates], selection: Selection) -> list[NearDuplicates]:
    """Return the pairs with the splits that the photos have after the selection, those of two splits or classes first.

    The split of a photo that is left out is None.
    """
    selected = {item.number: item for item in selection.photos}

    def update(item: SelectedPhoto) -> SelectedPhoto:
        return selected.get(item.number, item._replace(photo=item.photo._replace(split=None)))

    updated = [pair._replace(first=update(pair.first), second=update(pair.second)) for pair in pairs]
    return sorted(updated, key=lambda pair: (not pair.is_across_splits, not pair.is_across_classes, pair.distance))


def describe_placeholders(pairs: Sequence[NearDuplicates]) -> list[str]:
    """Return a warning for each of the largest groups of photos that are in several classes, as placeholders are."""
    groups = [list(group.values()) for group in _members(pairs).values()]
    num_classes = [len({item.photo.label for item in group}) for group in groups]
    found = [(len(group), num, group) for group, num in zip(groups, num_classes, strict=True)]
    large = sorted((item for item in found if item[1] >= _MIN_PLACEHOLDER_CLASSES), key=lambda item: -item[0])
    return [
        f"{size:,} photos of {num} classes look like {min(group).photo.path}: are they placeholders? "
        "Leave them out with --on near-duplicate=drop"
        for size, num, group in large[:_MAX_NAMED]
    ]


def _members(pairs: Sequence[NearDuplicates]) -> dict[int, dict[int, SelectedPhoto]]:
    """Return the photos of each group by their number."""
    groups: dict[int, dict[int, SelectedPhoto]] = defaultdict(dict)
    for pair in pairs:
        groups[pair.group] |= {item.number: item for item in (pair.first, pair.second)}
    return groups

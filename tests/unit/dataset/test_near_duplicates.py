"""Photos that look alike: which pairs are found, and what becomes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dataset.inspection import HASH_BITS, Inspection, InspectionOptions, InspectionTask, inspect
from dataset.listing import Photo
from dataset.near_duplicates import (
    MAX_DISTANCE,
    NearDuplicates,
    describe_placeholders,
    drop_near_duplicates,
    find_near_duplicates,
    update_splits,
)
from dataset.selection import SelectedPhoto, Selection
from support.drawing import draw_scene, encode

DEFAULTS = InspectionOptions(min_side=16, longer_side=None, repair_truncated=False, keep_tiny=False, link=False)


def hash_of(image: Image.Image, folder: Path) -> bytes:
    (folder / "photo.jpg").write_bytes(encode(image, quality=60))
    staged = folder / "staged"
    staged.unlink(missing_ok=True)
    return inspect(InspectionTask(str(folder / "photo.jpg"), str(staged)), DEFAULTS).perceptual_hash


def distance(first: bytes, second: bytes) -> int:
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).bit_count()


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((160, 120)),
    "larger": lambda image: image.resize((960, 720)),
    "squeezed": lambda image: image.resize((240, 240)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_looks_like_its_original(tmp_path: Path, change: str) -> None:
    original = hash_of(draw_scene(1), tmp_path)
    assert len(original) * 8 == HASH_BITS
    assert distance(original, hash_of(CHANGES[change](draw_scene(1)), tmp_path)) <= MAX_DISTANCE
    assert distance(original, hash_of(draw_scene(2), tmp_path)) > MAX_DISTANCE


def random_hashes(num: int) -> list[bytes]:
    return [row.tobytes() for row in np.random.default_rng(0).integers(0, 256, (num, HASH_BITS // 8), np.uint8)]


def flip(data: bytes, num_bits: int) -> bytes:
    return (int.from_bytes(data, "big") ^ ((1 << num_bits) - 1)).to_bytes(len(data), "big")


def items(hashes: Sequence[bytes], labels: str = "", splits: Sequence[str | None] = ()) -> list[SelectedPhoto]:
    """One photo for each hash, with different bytes; ``labels`` names each one's class by a letter."""
    return [
        SelectedPhoto(
            number,
            Photo(f"{number}.jpg", labels[number] if labels else "a", splits[number] if splits else None),
            Inspection(number.to_bytes(4, "big"), 10, 64, 64, perceptual_hash=looks),
        )
        for number, looks in enumerate(hashes)
    ]


def numbers(pairs: Sequence[NearDuplicates]) -> list[tuple[int, int, int, int]]:
    return [(pair.first.number, pair.second.number, pair.distance, pair.group) for pair in pairs]


def test_each_photo_is_paired_with_the_closest_earlier_one() -> None:
    one, two, other = random_hashes(3)
    hashes = [one, other, flip(one, 20), flip(one, 24), two, flip(two, MAX_DISTANCE), flip(other, MAX_DISTANCE + 1)]
    assert numbers(find_near_duplicates(items(hashes))) == [(0, 2, 20, 1), (2, 3, 4, 1), (4, 5, MAX_DISTANCE, 2)]
    assert find_near_duplicates([]) == []


def test_the_same_bytes_are_one_photo() -> None:
    copies = [item._replace(inspection=item.inspection._replace(digest=b"x")) for item in items(random_hashes(1) * 3)]
    assert find_near_duplicates(copies) == []
    similar = items(random_hashes(1) * 4)[3]
    assert numbers(find_near_duplicates([copies[0], similar._replace(number=1), copies[2]])) == [(0, 1, 0, 1)]


def test_pairs_are_found_in_and_across_all_blocks() -> None:
    hashes = random_hashes(1300)
    for first, second in ((3, 500), (5, 1299), (600, 700), (1100, 1101)):
        hashes[second] = flip(hashes[first], 7)
    assert [pair[:3] for pair in numbers(find_near_duplicates(items(hashes)))] == [
        (3, 500, 7),
        (600, 700, 7),
        (1100, 1101, 7),
        (5, 1299, 7),
    ]


def test_in_one_class_the_photo_of_the_last_split_is_kept() -> None:
    selection = Selection(items(random_hashes(1) * 3, splits=("train", "train", "test")), [])
    drop_near_duplicates(selection, find_near_duplicates(selection.photos))
    assert [item.number for item in selection.photos] == [2]
    assert [(defect.kind, defect.reason) for defect in selection.defects] == [
        ("near-duplicate", "looks like 2.jpg")
    ] * 2


def test_in_two_classes_none_is_kept() -> None:
    selection = Selection(items(random_hashes(1) * 2 + random_hashes(2)[1:], "aba"), [])
    drop_near_duplicates(selection, find_near_duplicates(selection.photos))
    assert [item.number for item in selection.photos] == [2]


def test_pairs_across_splits_and_classes_come_first_with_their_final_splits() -> None:
    one, two, three = random_hashes(3)
    photos = items([one, one, two, two, three, three], "aaabaa")
    splits = ("train", "train", "train", "train", "train", "test")
    final = [item._replace(photo=item.photo._replace(split=split)) for item, split in zip(photos, splits, strict=True)]
    pairs = update_splits(find_near_duplicates(photos), Selection(final[1:], []))
    assert [(pair.first.number, pair.is_across_splits, pair.is_across_classes) for pair in pairs] == [
        (4, True, False),
        (2, False, True),
        (0, False, False),
    ]
    assert [pair.first.photo.split for pair in pairs] == ["train", "train", None]


def test_groups_in_many_classes_are_taken_for_placeholders() -> None:
    one, two = random_hashes(2)
    pairs = find_near_duplicates(items([one, one, one, one, two, two], "abcabb"))
    assert describe_placeholders(pairs) == [
        "4 photos of 3 classes look like 0.jpg: are they placeholders? Leave them out with --on near-duplicate=drop"
    ]

"""Selection of photos: copies, splits, caps and balance."""

from collections import Counter
from collections.abc import Sequence

import pytest

from classifier.errors import ConfigError, DataError
from dataset.defects import parse_actions
from dataset.inspection import Inspection
from dataset.listing import Photo
from dataset.selection import Selection, cap, drop_small_classes, select, split_photos

Described = tuple[str, str, str | None]  # bytes, class, split


def choose(photos: Sequence[Described], *on: str) -> Selection:
    listed = [Photo(f"{label}/{number}.jpg", label, split) for number, (_, label, split) in enumerate(photos)]
    inspections = [Inspection(content.encode(), 10, 64, 64) for content, _, _ in photos]
    return select(listed, inspections, parse_actions(on))


def paths(selection: Selection) -> list[str]:
    return [item.photo.path for item in selection.photos]


def kinds(selection: Selection) -> Counter[str]:
    return Counter(f"{defect.kind} {defect.action}" for defect in selection.defects)


def test_the_same_bytes_in_two_classes_are_left_out_of_both() -> None:
    selection = choose([("x", "cat", None), ("x", "dog", None), ("y", "cat", None)])
    assert paths(selection) == ["cat/2.jpg"]
    assert [defect.reason for defect in selection.defects] == [
        "the same bytes as dog/1.jpg",
        "the same bytes as cat/0.jpg",
    ]


def test_the_same_bytes_in_two_splits_stay_in_the_later_split() -> None:
    selection = choose([("x", "cat", "train"), ("x", "cat", "test"), ("x", "cat", "validation")])
    assert paths(selection) == ["cat/1.jpg"]
    assert kinds(selection) == {"leak drop": 2}


def test_of_the_same_bytes_one_photo_is_kept() -> None:
    photos = [("x", "cat", "train"), ("x", "cat", "train"), ("x", "cat", "train")]
    selection = choose(photos)
    assert paths(selection) == ["cat/0.jpg"]
    assert kinds(selection) == {"repeat drop": 2}
    assert len(choose(photos, "repeat=keep").photos) == 3


def test_copies_are_kept_if_the_actions_say_so() -> None:
    photos = [("x", "cat", "train"), ("x", "cat", "test"), ("y", "cat", "train"), ("y", "dog", "train")]
    selection = choose(photos, "leak=keep", "conflict=keep")
    assert len(selection.photos) == 4
    assert kinds(selection) == {"leak keep": 1, "conflict keep": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leek=keep", r"unknown defect \(did you mean 'leak'\?\)"),
        ("corrupt=keep", r"for corrupt choose from drop$"),
        ("leak", r"for leak choose from drop, keep$"),
    ],
)
def test_an_unknown_action_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_actions([text])


def classes(**sizes: int) -> list[Described]:
    return [(f"{label}{number}", label, None) for label, size in sizes.items() for number in range(size)]


def split_sizes(
    photos: Sequence[Described], shares: dict[str, float], seed: int = 0
) -> Counter[tuple[str, str | None]]:
    split = split_photos(choose(photos).photos, shares, seed)
    return Counter((item.photo.label, item.photo.split) for item in split)


def test_every_class_gives_the_same_share_to_each_split() -> None:
    sizes = split_sizes(classes(cat=100, dog=20), {"validation": 0.2, "test": 0.1})
    assert sizes == {
        ("cat", "train"): 70,
        ("cat", "validation"): 20,
        ("cat", "test"): 10,
        ("dog", "train"): 14,
        ("dog", "validation"): 4,
        ("dog", "test"): 2,
    }


def test_a_class_of_three_has_a_photo_in_every_split() -> None:
    sizes = split_sizes(classes(cat=3, dog=3), {"validation": 0.15, "test": 0.15})
    assert set(sizes.values()) == {1}
    assert len(sizes) == 6


def test_too_few_photos_for_the_splits_is_an_error() -> None:
    with pytest.raises(DataError, match="class 'dog' has 2 different photos, too few for 3 splits"):
        split_sizes(classes(cat=9, dog=2), {"validation": 0.15, "test": 0.15})


def test_a_share_of_zero_makes_no_split() -> None:
    assert split_sizes(classes(cat=2), {"validation": 0.0, "test": 0.0}) == {("cat", "train"): 2}


def test_copies_get_the_same_split() -> None:
    photos = [(f"{number // 2}", "cat", None) for number in range(40)]
    split = split_photos(choose(photos, "repeat=keep").photos, {"validation": 0.3}, 0)
    sides = {
        item.inspection.digest: {
            other.photo.split for other in split if other.inspection.digest == item.inspection.digest
        }
        for item in split
    }
    assert len(split) == 40
    assert all(len(side) == 1 for side in sides.values())


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    def tested(photos: Sequence[Described], seed: int) -> set[bytes | None]:
        split = split_photos(choose(photos).photos, {"test": 0.2}, seed)
        return {item.inspection.digest for item in split if item.photo.split == "test"}

    photos = classes(cat=50)
    assert tested(photos, 0) == tested(list(reversed(photos)), 0)
    assert tested(photos, 0) != tested(photos, 1)


def test_adding_a_photo_moves_at_most_one_other() -> None:
    def train(photos: Sequence[Described]) -> set[bytes | None]:
        split = split_photos(choose(photos).photos, {"test": 0.2}, 0)
        return {item.inspection.digest for item in split if item.photo.split == "train"}

    before, after = train(classes(cat=50)), train(classes(cat=51))
    assert len(before ^ after) <= 1


def test_a_cap_counts_what_it_leaves_out() -> None:
    selection = choose(classes(cat=30, dog=5))
    cap(selection, max_per_class=10, balance=False, seed=0)
    assert Counter(item.photo.label for item in selection.photos) == {"cat": 10, "dog": 5}
    assert selection.capped == {"cat": 20}


def test_balance_limits_every_class_to_the_smallest_of_its_split() -> None:
    photos = [
        (f"{split}{label}{number}", label, split)
        for split, label, size in [("train", "cat", 9), ("train", "dog", 6), ("test", "cat", 3), ("test", "dog", 4)]
        for number in range(size)
    ]
    selection = choose(photos)
    cap(selection, max_per_class=None, balance=True, seed=0)
    sizes = Counter((item.photo.split, item.photo.label) for item in selection.photos)
    assert sizes == {("train", "cat"): 6, ("train", "dog"): 6, ("test", "cat"): 3, ("test", "dog"): 3}


def test_small_classes_are_left_out() -> None:
    selection = choose(classes(cat=5, dog=2))
    assert drop_small_classes(selection, 3) == {"dog": 2}
    assert {item.photo.label for item in selection.photos} == {"cat"}

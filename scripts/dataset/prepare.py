"""Source → listing → facts → selection → splits → class folders → report."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import ConfigError, DataError
from dataset.contact_sheet import draw_sheet
from dataset.defects import Actions
from dataset.inspection import Wishes, check_photos
from dataset.listing import SPLITS, Listing
from dataset.output_dir import open_workplace
from dataset.report import describe, write_report
from dataset.selection import Selection, cap, drop_small_classes, select, split_photos
from dataset.sources import Source, find_photos
from dataset.writing import place_photos, write_shards

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the command line asks for."""

    source: Source
    out: Path
    actions: Actions
    shares: Mapping[str, float]
    seed: int
    resplit: bool
    max_per_class: int | None
    min_per_class: int
    balance: bool
    min_side: int
    longer_side: int | None
    shard_photos: int | None
    link: bool
    replace: bool
    jobs: int


def prepare(plan: Plan, say: Say) -> Selection:
    """Make ``plan.out``.

    Raises:
        UserError: the source can't be read, holds too little, or ``out`` is in use.
    """
    _check_apart(plan)
    with open_workplace(plan.out, replace=plan.replace) as work:
        found = find_photos(plan.source, work, say)
        listing = _without_splits(found.listing) if plan.resplit else found.listing
        facts = check_photos(listing, work, _wishes(plan, link=plan.link or found.ours), plan.jobs)
        selection = select(listing.photos, facts, plan.actions)
        selection.defects += listing.defects
        _narrow(selection, listing, plan, say)
        places = place_photos(selection.chosen, work, plan.actions)
        if plan.shard_photos:
            write_shards(selection.chosen, places, work, num_photos=plan.shard_photos, seed=plan.seed)
        write_report(work / "report", selection, places, _record(plan))
        draw_sheet(selection.chosen, places, work).save(work / "report" / "samples.jpg", quality=90)
    say(describe(selection))
    return selection


def _check_apart(plan: Plan) -> None:
    source = Path(plan.source.text).expanduser().resolve()
    out = plan.out.resolve()
    if source.is_dir() and (out.is_relative_to(source) or source.is_relative_to(out)):
        raise ConfigError(
            f"OUT {plan.out} and SOURCE {plan.source.text} lie in each other: name a folder beside SOURCE"
        )


def _without_splits(listing: Listing) -> Listing:
    return Listing(listing.root, [photo._replace(split=None) for photo in listing.photos], listing.defects)


def _wishes(plan: Plan, *, link: bool) -> Wishes:
    return Wishes(
        min_side=plan.min_side,
        longer_side=plan.longer_side,
        repair_truncated=plan.actions["truncated"] == "repair",
        keep_tiny=plan.actions["tiny"] == "keep",
        link=link,
    )


def _narrow(selection: Selection, listing: Listing, plan: Plan, say: Say) -> None:
    """Caps, balance, small classes, splits; what is left must be worth training on."""
    if not selection.chosen:
        raise DataError(f"none of {len(listing.photos):,} files is a photo that can be used; {_example(selection)}")
    for label, num in drop_small_classes(selection, plan.min_per_class).items():
        say(f"class {label!r} is left out: it has {num} photos, and --min-per-class asks for {plan.min_per_class}")
    cap(selection, max_per_class=plan.max_per_class, balance=plan.balance, seed=plan.seed)
    if not listing.splits:
        selection.chosen = split_photos(selection.chosen, plan.shares, plan.seed)
    labels = {item.photo.label for item in selection.chosen}
    if len(labels) < 2:
        raise DataError(
            f"only one class is left, {', '.join(labels) or 'none'}; telling photos apart takes at least two"
        )
    _check_every_split(selection, say)


def _example(selection: Selection) -> str:
    return "; ".join(f"{defect.place}: {defect.reason}" for defect in selection.defects[:1])


def _check_every_split(selection: Selection, say: Say) -> None:
    """The training wants the same classes in every channel."""
    num = Counter((item.photo.label, item.photo.split) for item in selection.chosen)
    splits = [name for name in SPLITS if any(split == name for _, split in num)]
    if "train" not in splits:
        raise DataError("no photo is left in train: add some, or say --resplit to make the splits anew")
    for split in splits:
        lacking = sorted({label for label, _ in num if not num[label, split]})
        if lacking:
            say(
                f"warning: {split} has no photo of {', '.join(map(repr, lacking[:5]))}"
                f"{' …' if len(lacking) > 5 else ''}, and the training wants the same classes in every split: "
                "add some, or say --resplit"
            )


def _record(plan: Plan) -> dict[str, object]:
    """Enough to make the same again."""
    return {
        "source": plan.source.text if "://" in plan.source.text else os.path.basename(plan.source.text.rstrip("/")),  # noqa: PTH119
        "seed": plan.seed,
        "shares": dict(plan.shares),
        "actions": dict(plan.actions),
        "longer_side": plan.longer_side,
        "min_side": plan.min_side,
        "max_per_class": plan.max_per_class,
        "balance": plan.balance,
    }

"""Data preparation from start to end: list, inspect, select, split, write and report."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classifier.errors import ConfigError, DataError
from dataset.defects import Actions
from dataset.inspection import InspectionOptions, inspect_photos
from dataset.listing import SPLITS, Listing
from dataset.near_duplicates import (
    NearDuplicates,
    describe_placeholders,
    drop_near_duplicates,
    find_near_duplicates,
    update_splits,
)
from dataset.output import stage_output, write_class_folders, write_shards
from dataset.report import draw_contact_sheet, draw_pairs, format_summary, write_near_duplicates, write_report
from dataset.selection import Selection, cap, drop_small_classes, select, split_photos
from dataset.sources import FoundPhotos, Source, find_photos

Log = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The options of the command line. Sides are in pixels; shares are of each class, between 0 and 1."""

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
    photos_per_shard: int | None
    link: bool
    replace: bool
    jobs: int


def prepare(options: PrepareOptions, log: Log) -> Selection:
    """Write ``options.out`` and log its summary.

    Raises:
        UserError: the source can't be read or has too few photos, or ``out`` is in use.
    """
    _check_separate(options)
    with stage_output(options.out, replace=options.replace) as work:
        found = find_photos(options.source, work, log)
        if options.resplit:
            found = replace(found, listing=_without_splits(found.listing))
        listing = found.listing
        for warning in listing.warnings:
            log(f"warning: {warning}")
        inspection_options = _inspection_options(options, link=options.link or found.is_temporary)
        inspections = inspect_photos(listing, work, inspection_options, options.jobs)
        selection = select(listing.photos, inspections, options.actions)
        selection.defects += listing.defects
        pairs = find_near_duplicates(selection.photos)
        for warning in describe_placeholders(pairs):
            log(f"warning: {warning}")
        if options.actions["near-duplicate"] == "drop":
            drop_near_duplicates(selection, pairs)
        _limit_and_split(selection, found, options, log)
        pairs = update_splits(pairs, selection)
        _report_pairs(pairs, options.out, log)
        _write(selection, pairs, work, options)
    log(format_summary(selection))
    return selection


def _write(selection: Selection, pairs: Sequence[NearDuplicates], work: Path, options: PrepareOptions) -> None:
    """Write the photos and the report."""
    # From the staged files, which the next step moves.
    pair_sheet = draw_pairs(pairs, work) if pairs else None
    paths = write_class_folders(selection.photos, work, options.actions)
    if options.photos_per_shard:
        write_shards(selection.photos, paths, work, photos_per_shard=options.photos_per_shard, seed=options.seed)
    report = work / "report"
    write_report(report, selection, paths, _record(options))
    write_near_duplicates(report / "near_duplicates.csv", pairs)
    if pair_sheet:
        pair_sheet.save(report / "near_duplicates.jpg", quality=90)
    draw_contact_sheet(selection.photos, paths, work).save(report / "samples.jpg", quality=90)


def _check_separate(options: PrepareOptions) -> None:
    source = Path(options.source.text).expanduser().resolve()
    out = options.out.resolve()
    if source.is_dir() and (out.is_relative_to(source) or source.is_relative_to(out)):
        raise ConfigError(
            f"one of SOURCE {options.source.text} and OUT {options.out} is inside the other: "
            "choose an OUT beside SOURCE"
        )


def _without_splits(listing: Listing) -> Listing:
    return replace(listing, photos=[photo._replace(split=None) for photo in listing.photos])


def _inspection_options(options: PrepareOptions, *, link: bool) -> InspectionOptions:
    return InspectionOptions(
        min_side=options.min_side,
        longer_side=options.longer_side,
        repair_truncated=options.actions["truncated"] == "repair",
        keep_tiny=options.actions["tiny"] == "keep",
        link=link,
    )


def _limit_and_split(selection: Selection, found: FoundPhotos, options: PrepareOptions, log: Log) -> None:
    """Apply small-class removal, caps, balance and the split; raise if the result can't be trained on."""
    if not selection.photos:
        raise DataError(f"none of {len(found.listing.photos):,} files is a usable photo{_first_defect(selection)}")
    for label, num in drop_small_classes(selection, options.min_per_class).items():
        log(f"class {label!r} is left out: it has {num} photos, fewer than --min-per-class {options.min_per_class}")
    cap(selection, max_per_class=options.max_per_class, balance=options.balance, seed=options.seed)
    if not found.listing.splits:
        selection.photos = split_photos(selection.photos, options.shares, options.seed)
    elif missing := [name for name, share in options.shares.items() if share and name not in found.listing.splits]:
        log(
            f"warning: the source has {' and '.join(found.listing.splits)} but no {' and no '.join(missing)}: pass "
            "--resplit to split all photos again, into train, validation and test"
        )
    labels = {item.photo.label for item in selection.photos}
    if len(labels) < 2:
        raise DataError(
            f"only one class is left ({', '.join(labels) or 'none'}), and training needs at least two"
            f"{found.suggest_folder()}"
        )
    _check_splits(selection, log)


def _report_pairs(pairs: Sequence[NearDuplicates], out: Path, log: Log) -> None:
    num_splits = sum(pair.is_across_splits for pair in pairs)
    num_classes = sum(pair.is_across_classes for pair in pairs)
    if pairs:
        kind = "warning: " if num_splits or num_classes else ""
        log(
            f"{kind}pairs of photos that look alike: {len(pairs):,}, in two splits: {num_splits:,}, in two classes: "
            f"{num_classes:,}; see {out / 'report' / 'near_duplicates.jpg'}, and leave them out with "
            "--on near-duplicate=drop"
        )


def _first_defect(selection: Selection) -> str:
    return "".join(f"; {defect.path}: {defect.reason}" for defect in selection.defects[:1])


def _check_splits(selection: Selection, log: Log) -> None:
    """Require photos to train on, and warn of classes missing in a split, which training would reject."""
    num = Counter((item.photo.label, item.photo.split) for item in selection.photos)
    splits = [name for name in SPLITS if any(split == name for _, split in num)]
    if "train" not in splits:
        raise DataError("no photo is left in train: add some, or pass --resplit to split all photos again")
    for split in splits:
        missing = sorted({label for label, _ in num if not num[label, split]})
        if missing:
            log(
                f"warning: {split} has no photo of {', '.join(map(repr, missing[:5]))}"
                f"{' …' if len(missing) > 5 else ''}, and training needs the same classes in every split: "
                "add some, or pass --resplit"
            )


def _record(options: PrepareOptions) -> dict[str, object]:
    """Return the options that determine the result, for ``prepared.json``."""
    source = options.source.text
    return {
        "source": source if "://" in source else os.path.basename(source.rstrip("/")),  # noqa: PTH119
        "seed": options.seed,
        "shares": dict(options.shares),
        "actions": dict(options.actions),
        "longer_side": options.longer_side,
        "min_side": options.min_side,
        "max_per_class": options.max_per_class,
        "balance": options.balance,
    }

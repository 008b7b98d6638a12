"""Prepare a data set: check every photo, and write train/, validation/ and test/ of class folders.

SOURCE may be
  a folder of class folders, or of train/, valid/ and test/ of them
  a zip or tar of either, local or at an http(s) URL
  a CSV of paths and labels, an .lst file, or a SageMaker augmented manifest (JSON lines)
  a Polyvore JSON, or the folder that holds all three, with the images beside it

Examples:
  .venv/bin/python scripts/prepare_data.py photos prepared
  .venv/bin/python scripts/prepare_data.py dogImages.zip prepared --longer-side 320
  .venv/bin/python scripts/prepare_data.py labels.csv prepared --images photos --on leak=keep
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.archives import MAX_BYTES
from classifier.errors import ConfigError
from classifier.host import num_cores
from commands.running import run_command
from dataset.defects import describe_kinds, parse_actions
from dataset.prepare import PrepareOptions, prepare
from dataset.sources import Source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    again = "stopped; run the same command again (a download is resumed)"
    return run_command("prepare_data", lambda: _prepare(options), on_interrupt=again, place=options.out)


def _prepare(options: argparse.Namespace) -> int:
    selection = prepare(_prepare_options(options), lambda line: print(line, flush=True))
    print(f"\nwrote {len(selection.photos):,} photos to {options.out}; see {options.out / 'report' / 'samples.jpg'}")
    print(f"next: local_test/train_local.sh --data {options.out}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description=__doc__,
        epilog=f"Kinds of defects, and the actions for --on (the first is the default):\n{describe_kinds()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="source of the photos; never modified")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; unfinished work is in OUT.part")
    parser.add_argument("--replace", action="store_true", help="replace an OUT that this command wrote")
    parser.add_argument("--jobs", type=_parse_count, default=num_cores(), metavar="N", help="processes (%(default)s)")
    _add_source_options(parser)
    _add_photo_options(parser)
    _add_split_options(parser)
    return parser.parse_args(arguments)


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("reading the source")
    source.add_argument(
        "--images", type=Path, metavar="DIR", help="folder that the paths of a CSV, manifest or JSON are relative to"
    )
    source.add_argument(
        "--labels", type=Path, metavar="FILE", help="names of the labels: JSON, or lines such as `3 Dresses`"
    )
    source.add_argument("--label-attribute", metavar="NAME", help="attribute of a manifest that holds the label")
    source.add_argument("--sha256", metavar="HEX", help="expected SHA-256 of a download")
    source.add_argument(
        "--max-size",
        type=_parse_size,
        default=MAX_BYTES,
        metavar="SIZE",
        help="largest download, and largest sum of extracted files (100GB)",
    )


def _add_photo_options(parser: argparse.ArgumentParser) -> None:
    photos = parser.add_argument_group("photos")
    photos.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="DEFECT=ACTION",
        help="action for a kind of defect, see below; may be repeated",
    )
    photos.add_argument(
        "--min-side",
        type=_parse_count,
        default=16,
        metavar="PIXELS",
        help="photos with a shorter side are tiny (%(default)s)",
    )
    photos.add_argument(
        "--longer-side", type=_parse_count, metavar="PIXELS", help="scale larger photos down, and save them as JPEG"
    )
    photos.add_argument(
        "--link", action="store_true", help="hard-link unchanged photos to SOURCE instead of copying them"
    )
    photos.add_argument(
        "--shards", type=_parse_count, metavar="N", help="also write tar files of N photos each (WebDataset)"
    )


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    splits = parser.add_argument_group("splits and classes")
    splits.add_argument(
        "--validation",
        type=_parse_share,
        default=0.15,
        metavar="SHARE",
        help="share of each class, unless SOURCE has splits (%(default)s)",
    )
    splits.add_argument(
        "--test",
        type=_parse_share,
        default=0.15,
        metavar="SHARE",
        help="share of each class, unless SOURCE has splits (%(default)s)",
    )
    splits.add_argument("--resplit", action="store_true", help="split all photos again, even if SOURCE has splits")
    splits.add_argument("--seed", type=int, default=0, metavar="N", help="seed of splits and caps (%(default)s)")
    splits.add_argument(
        "--max-per-class",
        type=_parse_count,
        metavar="N",
        help="limit the photos of each class (in each split of SOURCE)",
    )
    splits.add_argument("--min-per-class", type=int, default=0, metavar="N", help="leave out classes with fewer photos")
    splits.add_argument("--balance", action="store_true", help="limit each class to the size of the smallest")


def _prepare_options(options: argparse.Namespace) -> PrepareOptions:
    if options.validation + options.test >= 1:
        raise ConfigError("--validation and --test must add up to less than 1, to leave photos to train on")
    return PrepareOptions(
        source=Source(
            text=options.source,
            images=options.images,
            labels=options.labels,
            label_attribute=options.label_attribute,
            sha256=options.sha256,
            max_bytes=options.max_size,
        ),
        out=options.out,
        actions=parse_actions(options.on),
        shares={"validation": options.validation, "test": options.test},
        seed=options.seed,
        resplit=options.resplit,
        max_per_class=options.max_per_class,
        min_per_class=options.min_per_class,
        balance=options.balance,
        min_side=options.min_side,
        longer_side=options.longer_side,
        photos_per_shard=options.shards,
        link=options.link,
        replace=options.replace,
        jobs=options.jobs,
    )


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _parse_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: use a number from 0 to below 1")
    return share


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 2GB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " "))


if __name__ == "__main__":
    sys.exit(main())

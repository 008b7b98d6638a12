"""Turn whatever photos you have into train/, validation/ and test/ of class folders, every photo checked.

SOURCE may be
  a folder of class folders, or of train/, valid/ and test/ of them
  a zip or tar of either, on this machine or at an http(s) address
  a CSV with path and label, an .lst file, a SageMaker augmented manifest (JSON lines)
  a Polyvore JSON, or the folder that holds all three, with its images beside it

Examples:
  .venv/bin/python scripts/prepare_data.py photos prepared
  .venv/bin/python scripts/prepare_data.py dogImages.zip prepared --longer-side 320
  .venv/bin/python scripts/prepare_data.py labels.csv prepared --images photos --on leak=keep
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import ConfigError, UserError
from dataset.defects import describe_kinds, parse_actions
from dataset.prepare import Plan, prepare
from dataset.sources import Source


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        selection = prepare(_plan(options), lambda line: print(line, flush=True))
    except UserError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"prepare_data: {error.filename or options.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_data: stopped; the same command starts again, and goes on with a download", file=sys.stderr)
        return 130
    print(f"\n{len(selection.chosen):,} photos are in {options.out}; look at {options.out / 'report' / 'samples.jpg'}")
    print(f"next: local_test/train_local.sh --data {options.out}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prepare_data",
        description=__doc__,
        epilog=f"What can be wrong, and what may be done about it (the first is the default):\n{describe_kinds()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="where the photos come from; it is never changed")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make; beside it, OUT.part while at work")
    parser.add_argument("--replace", action="store_true", help="make an OUT of this command's again")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")

    source = parser.add_argument_group("what the source says")
    source.add_argument("--images", type=Path, metavar="DIR", help="where the paths of a CSV, manifest or JSON start")
    source.add_argument(
        "--labels", type=Path, metavar="FILE", help="what labels are called: JSON, or `3 Dresses` lines"
    )
    source.add_argument("--label-attribute", metavar="NAME", help="which attribute of a manifest is the label")
    source.add_argument("--sha256", metavar="HEX", help="what a download's checksum must be")
    source.add_argument(
        "--max-size", type=_bytes, default=_bytes("100GB"), metavar="SIZE", help="most to download or extract (100GB)"
    )

    photos = parser.add_argument_group("what becomes of the photos")
    photos.add_argument(
        "--on", action="append", default=[], metavar="DEFECT=ACTION", help="see below; may be given often"
    )
    photos.add_argument("--min-side", type=_count, default=16, metavar="PIXELS", help="shorter is tiny (%(default)s)")
    photos.add_argument("--longer-side", type=_count, metavar="PIXELS", help="scale larger photos down, saved as JPEG")
    photos.add_argument(
        "--link", action="store_true", help="hard links to SOURCE where nothing is changed: saves space"
    )
    photos.add_argument("--shards", type=_count, metavar="N", help="also write tar files of N photos (WebDataset)")

    splits = parser.add_argument_group("splits and classes")
    splits.add_argument(
        "--validation", type=_share, default=0.15, metavar="SHARE", help="%(default)s, if none is given"
    )
    splits.add_argument("--test", type=_share, default=0.15, metavar="SHARE", help="%(default)s, if none is given")
    splits.add_argument("--resplit", action="store_true", help="make the splits anew, even if SOURCE has its own")
    splits.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another draw of splits and caps (%(default)s)"
    )
    splits.add_argument(
        "--max-per-class", type=_count, metavar="N", help="cap each class (in each split of SOURCE's own)"
    )
    splits.add_argument("--min-per-class", type=int, default=0, metavar="N", help="leave out classes with fewer photos")
    splits.add_argument("--balance", action="store_true", help="cap each class at what the rarest has")
    return parser.parse_args(arguments)


def _plan(options: argparse.Namespace) -> Plan:
    if options.validation + options.test >= 1:
        raise ConfigError("--validation and --test together must leave something to train on: less than 1")
    return Plan(
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
        shard_photos=options.shards,
        link=options.link,
        replace=options.replace,
        jobs=options.jobs,
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: 0 or more, and less than 1")
    return share


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 2GB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " "))


if __name__ == "__main__":
    sys.exit(main())

"""Upload prepared channels to S3: what is not there yet, many files at a time.

FOLDER holds train/, validation/, test/ as prepare_data makes them (or pretrained/); any other folder is the channel
train. Standard output gets a line a channel, NAME=S3-URI; all else goes to standard error.

Run it again after an interruption: what is there already, by size and checksum, is not sent again.

Examples:
  .venv/bin/python scripts/upload_data.py prepared s3://my-bucket/clothing
  .venv/bin/python scripts/upload_data.py prepared s3://my-bucket/clothing --delete --dry-run
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aws.clients import s3_client
from classifier.errors import DataError, UserError
from dataset.progress import amount
from dataset.upload import Manner, Place, Tally, upload_folder

CHANNELS = ("train", "validation", "test", "pretrained")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        _upload(options)
    except UserError as error:
        _say(f"upload_data: {error}")
        return 1
    except OSError as error:
        _say(f"upload_data: {error.filename}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        _say("upload_data: stopped; the same command goes on from there")
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="upload_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the channels' folder")
    parser.add_argument("place", metavar="S3_URI", help="s3://bucket/prefix; each channel goes below it")
    parser.add_argument("--delete", action="store_true", help="delete objects of these channels that FOLDER lacks")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--jobs", type=int, default=16, metavar="N", help="files at a time (%(default)s)")
    return parser.parse_args(arguments)


def _upload(options: argparse.Namespace) -> None:
    place = Place.parse(options.place)
    channels = find_channels(options.folder)
    manner = Manner(jobs=max(1, options.jobs), delete=options.delete, dry_run=options.dry_run)
    client = s3_client(num_connections=manner.jobs)
    for name, folder in channels.items():
        tally = upload_folder(client, folder, place / name, manner, _say)
        _say(f"{name}: {_describe(tally, manner)}")
    for name in channels:
        # With its slash, or S3 would also take what lies under a prefix that only begins so.
        print(f"{name}={place / name}/", flush=True)


def find_channels(folder: Path) -> dict[str, Path]:
    """The sub-folders that are called as channels are, or the folder itself as ``train``.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    channels = {name: folder / name for name in CHANNELS if (folder / name).is_dir()}
    if "train" not in channels:
        channels = {"train": folder}
    for channel in channels.values():
        if not any(channel.iterdir()):
            raise DataError(f"{channel} is empty: prepare_data fills it")
    return channels


def _describe(tally: Tally, manner: Manner) -> str:
    sent = "would be uploaded" if manner.dry_run else "uploaded"
    words = [f"{tally.uploaded:,} {sent} ({amount(tally.uploaded_bytes, 'B')})", f"{tally.same:,} there already"]
    if tally.extra and manner.delete:
        words.append(f"{tally.extra:,} {'would be deleted' if manner.dry_run else 'deleted'}")
    elif tally.extra:
        words.append(f"{tally.extra:,} more are there that the folder lacks; --delete removes such")
    return ", ".join(words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Upload the channels of a data folder to S3: many files at a time, and only what is not there yet.

FOLDER holds train/, validation/ and test/, as prepare_data writes them, and perhaps pretrained/; or it holds class
folders alone, which together form the channel train. Folders called training/, val/, valid/, dev/ or testing/ are
uploaded under the channel's name. Standard output gets one line per channel, NAME=S3-URI; everything
else goes to standard error.

After an interruption, run the same command again: files that are there already, by size and checksum, are skipped.

Examples:
  .venv/bin/python scripts/upload_data.py prepared s3://my-bucket/clothing
  .venv/bin/python scripts/upload_data.py prepared s3://my-bucket/clothing --delete --dry-run
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aws.clients import s3_client
from classifier.contract.channels import PHOTO_CHANNELS, describe_nested_classes, find_channels, is_junk_file
from classifier.errors import DataError
from commands.running import run_command
from dataset.progress import format_amount
from dataset.upload import S3Location, UploadOptions, UploadSummary, upload_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    again = "stopped; run the same command again to resume"
    return run_command("upload_data", lambda: _upload(options), on_interrupt=again)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="upload_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of channels, or of class folders")
    parser.add_argument("location", metavar="S3_URI", help="s3://bucket/prefix, below which each channel is uploaded")
    parser.add_argument("--delete", action="store_true", help="delete objects of these channels that FOLDER lacks")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, without doing it")
    parser.add_argument("--jobs", type=int, default=16, metavar="N", help="files uploaded at a time (%(default)s)")
    return parser.parse_args(arguments)


def _upload(options: argparse.Namespace) -> int:
    location = S3Location.parse(options.location)
    channels = find_channels(options.folder)
    for name, folder in channels.items():
        if name in PHOTO_CHANNELS and (warning := describe_nested_classes(folder, suggest=len(channels) == 1)):
            _log(f"warning: {warning}")
        if all(is_junk_file(entry.name) for entry in folder.iterdir()):
            raise DataError(f"{folder} is empty: fill it with prepare_data")
    upload_options = UploadOptions(jobs=max(1, options.jobs), delete=options.delete, dry_run=options.dry_run)
    client = s3_client(num_connections=upload_options.jobs)
    for name, folder in channels.items():
        summary = upload_folder(client, folder, location / name, upload_options, _log)
        _log(f"{name}: {_format_summary(summary, upload_options)}")
    for name in channels:
        # With a slash at its end: S3 would match train2/ to the prefix train, too.
        print(f"{name}={location / name}/", flush=True)
    return 0


def _format_summary(summary: UploadSummary, options: UploadOptions) -> str:
    uploaded = "would be uploaded" if options.dry_run else "uploaded"
    parts = [
        f"{summary.uploaded:,} {uploaded} ({format_amount(summary.uploaded_bytes, 'B')})",
        f"{summary.unchanged:,} already there",
    ]
    if summary.extra and options.delete:
        parts.append(f"{summary.extra:,} {'would be deleted' if options.dry_run else 'deleted'}")
    elif summary.extra:
        parts.append(f"{summary.extra:,} extra objects kept (remove them with --delete)")
    return ", ".join(parts)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

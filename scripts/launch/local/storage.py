"""Data of local jobs: input channels and output artifacts, in folders (``file://``) or in S3 (``s3://``)."""

import shutil
import tarfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aws.clients import s3_client
from aws.errors import translate_errors
from launch.local.errors import invalid


def is_local(uri: str) -> bool:
    return uri.startswith("file://")


def local_path(uri: str, what: str) -> Path:
    """Return the path of a ``file://`` URI.

    Args:
        what: the URI's field in the request, for the error message.

    Raises:
        ClientError: it has another scheme.
    """
    if not is_local(uri):
        raise invalid(f"{what} {uri!r}: the local client needs a folder, file:///…")
    return Path(urllib.parse.unquote(urllib.parse.urlparse(uri).path))


def download_object(uri: str, path: Path) -> None:
    """Download one object from S3.

    Raises:
        CloudError: S3 refuses, or has no such object.
    """
    bucket, key = _split(uri)
    with translate_errors(uri):
        s3_client(num_connections=1).download_file(bucket, key, str(path))


def check_channels(request: Mapping[str, Any]) -> None:
    """Check the channels of a training request.

    Raises:
        ClientError: the local client cannot provide a channel, or its folder does not exist.
    """
    for channel in request.get("InputDataConfig", ()):
        name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
        # AWS's pattern allows both.
        if name in (".", ".."):
            raise invalid(f"channel {name!r}: the local client needs a name that can be a folder's")
        if source is None or source["S3DataType"] != "S3Prefix":
            raise invalid(f"channel {name!r}: the local client needs an S3DataSource of type S3Prefix")
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            raise invalid(f"channel {name!r}: the local client gives every host all photos: use FullyReplicated")
        if is_local(source["S3Uri"]) and not local_path(source["S3Uri"], name).is_dir():
            raise invalid(f"channel {name!r}: there is no folder {local_path(source['S3Uri'], name)}")


def fetch_channels(request: Mapping[str, Any], target: Path) -> dict[str, Path]:
    """Map the channels of a training request to folders; those in S3 are downloaded into ``target``.

    Raises:
        CloudError: S3 refuses.
        ClientError: S3 has no objects under a channel's prefix.
    """
    folders: dict[str, Path] = {}
    for channel in request.get("InputDataConfig", ()):
        name, uri = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]
        if is_local(uri):
            folders[name] = local_path(uri, name)
        else:
            folders[name] = target / name
            _download_prefix(uri, folders[name])
    return folders


def _download_prefix(uri: str, folder: Path) -> None:
    """Download all objects under a prefix, as the platform does in File mode."""
    bucket, prefix = _split(uri)
    # A prefix may end within a file name: what follows its last slash belongs to the names of the files.
    start = prefix.rpartition("/")[0]
    folder.mkdir(parents=True, exist_ok=True)
    is_empty = True
    with translate_errors(uri):
        client = s3_client(num_connections=1)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/"):
                    continue
                path = folder / item["Key"][len(start) :].lstrip("/")
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise invalid(f"s3://{bucket}/{item['Key']}: its path leads out of the channel's folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, item["Key"], str(path))
                is_empty = False
    if is_empty:
        raise invalid(f"no S3 objects found under {uri!r}")


def pack(folders: Sequence[Path], archive: Path) -> bool:
    """Pack the contents of several hosts' folders into one ``tar.gz``; of equal names the first is kept.

    Returns:
        Whether there was anything to pack; if not, no archive is written.

    Raises:
        OSError: the archive could not be written, and nothing of it is left.
    """
    entries = [(entry, entry.relative_to(folder)) for folder in folders for entry in _entries(folder)]
    if not entries:
        return False
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_suffix(".part")
    names: set[Path] = set()
    try:
        with tarfile.open(temporary, "w:gz", compresslevel=1) as packed:
            for entry, name in entries:
                if name not in names:
                    packed.add(entry, str(name), recursive=False)
                names.add(name)
        temporary.replace(archive)
    except OSError as error:
        # The partial archive may be what fills the disk.
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(archive)) from None
    return True


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*")) if folder.is_dir() else []


def deliver(archive: Path, output: str, job: str) -> str:
    """Move an archive to its place below ``S3OutputPath``, the same as on the platform, and return its URI.

    Raises:
        CloudError: S3 refuses it.
        OSError: it could not be written, and nothing of it is left.
    """
    uri = f"{output.rstrip('/')}/{job}/output/{archive.name}"
    if is_local(output):
        target = local_path(output, "S3OutputPath") / job / "output" / archive.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _move(archive, target)
        return target.as_uri()
    bucket, key = _split(uri)
    with translate_errors(uri):
        s3_client(num_connections=1).upload_file(str(archive), bucket, key)
    return uri


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all.

    Raises:
        OSError: it could not be written, and nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another disk; a part of it is never seen under its name."""
    temporary = target.with_suffix(".part")
    try:
        shutil.move(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from None


def deliver_folder(folders: Iterable[Path], output: str | None, job: str, name: str) -> None:
    """Merge several hosts' tensors or profiles below their own output path, if that is a local folder."""
    if output is None or not is_local(output):
        return
    for folder in folders:
        if folder.is_dir():
            target = local_path(output, name) / job / name
            try:
                shutil.copytree(folder, target, dirs_exist_ok=True)
            except shutil.Error as error:
                raise invalid(f"{target} can't be written: {error.args[0][0][2]}") from None


def _split(uri: str) -> tuple[str, str]:
    """Split an ``s3://`` URI into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key

"""A job's input channels → folders on this machine; what lies in S3 is downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.cloud import explained, s3_client
from launch.local.addresses import folder_of, is_local
from launch.local.refusals import invalid


def check_channels(request: Mapping[str, Any]) -> None:
    """
    Raises:
        ClientError: a channel can't be had on this machine, or its folder does not exist.
    """
    for channel in request.get("InputDataConfig", ()):
        name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
        if source is None or source["S3DataType"] != "S3Prefix":
            raise invalid(f"channel {name!r}: on this machine a channel has to be an S3DataSource of type S3Prefix")
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            raise invalid(f"channel {name!r}: on this machine every host sees every photo: FullyReplicated")
        if is_local(source["S3Uri"]) and not folder_of(source["S3Uri"], name).is_dir():
            raise invalid(f"channel {name!r}: there is no folder {folder_of(source['S3Uri'], name)}")


def fetch_channels(request: Mapping[str, Any], place: Path) -> dict[str, Path]:
    """Names of channels → folders; those in S3 are downloaded to ``place``.

    Raises:
        CloudError: S3 refuses, or has nothing there.
    """
    folders: dict[str, Path] = {}
    for channel in request.get("InputDataConfig", ()):
        name, uri = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]
        if is_local(uri):
            folders[name] = folder_of(uri, name)
        else:
            folders[name] = place / name
            download(uri, folders[name])
    return folders


def download(uri: str, folder: Path) -> int:
    """Objects under a prefix → files below a folder, as the platform does; how many.

    Raises:
        CloudError: S3 refuses, or has nothing there.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    # A prefix need not end with a folder's name: what follows its last slash belongs to the files'.
    start = prefix.rpartition("/")[0]
    folder.mkdir(parents=True, exist_ok=True)
    with explained(uri):
        client, num = s3_client(num_connections=1), 0
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/"):
                    continue
                path = folder / item["Key"][len(start) :].lstrip("/")
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise invalid(f"s3://{bucket}/{item['Key']} leads out of its channel")
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, item["Key"], str(path))
                num += 1
    if not num:
        raise invalid(f"no S3 objects found under {uri!r}")
    return num

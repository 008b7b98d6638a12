"""Checks of the places in S3 that a job reads and writes, before it is created and its meter runs."""

from collections.abc import Iterable

from aws.clients import check_bucket, check_prefix, client
from launch.platform.clients import PlatformOptions
from launch.terminal import print_status


def print_unchecked(places: Iterable[str]) -> None:
    """Print that a dry run does not look whether places in S3 exist, if there are any."""
    buckets = dict.fromkeys(
        place.removeprefix("s3://").partition("/")[0] for place in places if place.startswith("s3://")
    )
    if buckets:
        print_status(f"not checked in a dry run: whether there are objects to read and buckets: {', '.join(buckets)}")


def check_places(read: Iterable[str], written: Iterable[str], platform: PlatformOptions) -> None:
    """Check that buckets exist, in the platform's region, and that there is something to read.

    Args:
        read: prefixes; those that are not ``s3://`` are left out, here and below.
        written: prefixes, of which the bucket is checked.

    Raises:
        CloudError: a bucket does not exist or is in another region, or a prefix has no objects or matches other
            folders, too.
    """
    sources = [place for place in read if place.startswith("s3://")]
    places = [*sources, *(place for place in written if place.startswith("s3://"))]
    if not places:
        return
    s3 = client("s3", region=platform.region)
    for bucket in dict.fromkeys(place.removeprefix("s3://").partition("/")[0] for place in places):
        check_bucket(s3, f"s3://{bucket}", same_region=not platform.local)
    for source in sources:
        check_prefix(s3, source)

"""Where data lies, as the API writes it: ``file://`` for this machine, ``s3://`` for the bucket."""

import urllib.parse
from pathlib import Path

from launch.local.refusals import invalid


def is_local(uri: str) -> bool:
    return uri.startswith("file://")


def folder_of(uri: str, what: str) -> Path:
    """The path that a ``file://`` address names.

    Raises:
        ClientError: it is another kind of address.
    """
    if not is_local(uri):
        raise invalid(f"{what} {uri!r}: on this machine it has to be a folder, file:///…")
    return Path(urllib.parse.unquote(urllib.parse.urlparse(uri).path))

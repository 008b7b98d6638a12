"""Single objects in S3 (``s3://``) and on this machine (``file://``)."""

from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.clients import client
from aws.errors import CloudError, translate_errors
from launch.local.storage import is_local, local_path

_MISSING = ("404", "NoSuchKey")
_DENIED = ("403", "AccessDenied")


class Objects:
    """Reads and writes objects by their address.

    Args:
        region: overrides the region of the environment.
    """

    def __init__(self, region: str | None = None) -> None:
        self._region = region

    def upload(self, path: Path, uri: str) -> None:
        """Copy a file to an address in S3.

        Raises:
            CloudError: S3 refused it or can't be reached.
        """
        bucket, key = _split(uri)
        with translate_errors(uri):
            self._s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, or None if there is none.

        Raises:
            CloudError: S3 refused the request or can't be reached.
        """
        if is_local(uri):
            path = local_path(uri, "object")
            return path.read_bytes() if path.is_file() else None
        bucket, key = _split(uri)
        with translate_errors(uri):
            try:
                return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code in _MISSING:
                    return None
                if code in _DENIED:
                    # Without s3:ListBucket, this is also S3's answer about an object that does not exist yet.
                    raise CloudError(
                        f"{uri}: access is denied: the credentials need s3:GetObject there and s3:ListBucket on the "
                        "bucket"
                    ) from None
                raise

    def delete(self, uri: str) -> None:
        """Delete an object in S3.

        Raises:
            CloudError: S3 refused the request or can't be reached.
        """
        bucket, key = _split(uri)
        with translate_errors(uri):
            self._s3.delete_object(Bucket=bucket, Key=key)

    @cached_property
    def _s3(self) -> Any:
        return client("s3", region=self._region)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key

"""Incremental upload of a folder to an S3 prefix: only what differs, many files at a time, in constant memory.

Files and objects are both read in the order in which S3 lists keys, and compared pairwise. A file and an object are the
same if size and ETag agree, which the listing contains: the ETag is the MD5 of an object uploaded in one part, or of
the MD5s of its parts. Where it is neither (KMS encryption), the CRC-32 that every upload carries is requested for each
object.
"""

import base64
import hashlib
import mimetypes
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from aws.errors import CloudError, UnreachableError, translate_errors
from classifier.contract.channels import is_junk_file
from classifier.errors import DataError
from commands import interrupts
from dataset.progress import progress

PART_SIZE = 16 << 20  # bytes; larger files are uploaded in parts of this size
_QUEUED_PER_THREAD = 4  # files
_MAX_KEYS_PER_DELETE = 1000  # S3's limit
_MULTIPART = TransferConfig(multipart_threshold=PART_SIZE + 1, multipart_chunksize=PART_SIZE, use_threads=False)

# Those that mimetypes may lack or may not agree on from one machine to another.
_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".tar": "application/x-tar",
    ".cls": "text/plain",
}


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key prefix without a slash at its end."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> "S3Location":
        """Parse ``s3://bucket/prefix``.

        Raises:
            DataError: the text has another form.
        """
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not bucket:
            raise DataError(f"{text!r} is not of the form s3://bucket/prefix")
        return cls(bucket, prefix.strip("/"))

    def __truediv__(self, name: str) -> "S3Location":
        return S3Location(self.bucket, f"{self.prefix}/{name}" if self.prefix else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


class LocalFile(NamedTuple):
    """A file; ``key`` is its path relative to the folder with slashes, ``size`` is in bytes."""

    key: str
    path: str
    size: int


class RemoteObject(NamedTuple):
    """An object; ``key`` is what follows the location's prefix, ``size`` is in bytes."""

    key: str
    size: int
    etag: str


@dataclass
class UploadSummary:
    """Numbers of an upload, or of what a dry run would do; ``extra`` objects have no file in the folder."""

    uploaded: int = 0
    uploaded_bytes: int = 0
    unchanged: int = 0
    extra: int = 0


@dataclass(frozen=True, kw_only=True)
class UploadOptions:
    """The number of threads, whether to delete extra objects, and whether to only log what would be done."""

    jobs: int
    delete: bool = False
    dry_run: bool = False


def upload_folder(
    client: Any, folder: Path, location: S3Location, options: UploadOptions, log: Callable[[str], object]
) -> UploadSummary:
    """Upload the files of a folder that ``location`` lacks or has with other contents.

    Args:
        client: a boto3 S3 client with a connection for each thread.
        log: called with one line for each change that a dry run would make, and for what it could not look up.

    Raises:
        CloudError: S3 rejects a request or can't be reached.
        DataError: a file name is not UTF-8.
    """
    upload = _Upload(client, location, options, log)
    total = sum(1 for _ in walk(folder))
    with translate_errors(str(location)), progress(f"uploading {folder.name}", total, unit="files") as advance:
        objects = list_objects(client, location)
        upload.run(_join(walk(folder), _if_known(objects, location, log) if options.dry_run else objects), advance)
    return upload.summary


def _if_known(
    objects: Iterator[RemoteObject], location: S3Location, log: Callable[[str], object]
) -> Iterator[RemoteObject]:
    """Yield the objects below a location, or none if S3 can't be asked, for lack of credentials for example."""
    try:
        with translate_errors(str(location)):
            yield from objects
    except UnreachableError as error:
        log(f"not checked: {error}; files that may be there are taken to be missing")


class _Upload:
    def __init__(self, client: Any, location: S3Location, options: UploadOptions, log: Callable[[str], object]) -> None:
        self._client, self._location, self._options, self._log = client, location, options, log
        self._extra_keys: list[str] = []
        self.summary = UploadSummary()

    def run(self, pairs: Iterable["_Pair"], advance: Callable[[int], object]) -> None:
        queue: deque[tuple[LocalFile, Future[bool]]] = deque()
        pool = ThreadPoolExecutor(self._options.jobs, thread_name_prefix="upload")
        try:
            for file, remote in pairs:
                interrupts.check()
                if file is None:
                    self._add_extra(remote)
                    continue
                queue.append((file, pool.submit(self._upload_if_changed, file, remote)))
                if len(queue) >= self._options.jobs * _QUEUED_PER_THREAD:
                    self._count(*queue.popleft(), advance)
            while queue:
                interrupts.check()
                self._count(*queue.popleft(), advance)
            self._delete_extras()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _count(self, file: LocalFile, uploaded: "Future[bool]", advance: Callable[[int], object]) -> None:
        if uploaded.result():
            self.summary.uploaded += 1
            self.summary.uploaded_bytes += file.size
            if self._options.dry_run:
                self._log(f"would upload {file.path} to {self._location / file.key}")
        else:
            self.summary.unchanged += 1
        advance(1)

    def _upload_if_changed(self, file: LocalFile, remote: RemoteObject | None) -> bool:
        """Return whether the file was, or in a dry run would be, uploaded. Runs in a thread of the pool."""
        key = (self._location / file.key).prefix
        if file.size > PART_SIZE:
            if remote and self._is_same(file, remote, _read_parts(file)):
                return False
            if not self._options.dry_run:
                self._upload_in_parts(file, key)
            return True
        data = Path(file.path).read_bytes()
        if remote and self._is_same(file, remote, [data]):
            return False
        if not self._options.dry_run:
            # Bytes instead of a file, which botocore would read twice and send only after a 100-continue response.
            self._client.put_object(
                Bucket=self._location.bucket,
                Key=key,
                Body=data,
                ContentType=content_type(key),
                ChecksumAlgorithm="CRC32",
            )
        return True

    def _upload_in_parts(self, file: LocalFile, key: str) -> None:
        extra = {"ContentType": content_type(key), "ChecksumAlgorithm": "CRC32"}
        try:
            self._client.upload_file(file.path, self._location.bucket, key, ExtraArgs=extra, Config=_MULTIPART)
        except S3UploadFailedError as error:
            raise CloudError(str(error)) from None

    def _is_same(self, file: LocalFile, remote: RemoteObject, parts: Iterable[bytes]) -> bool:
        if file.size != remote.size:
            return False
        sums = checksums(parts)
        return remote.etag == sums.etag or self._crc(remote) in sums.crcs

    def _crc(self, remote: RemoteObject) -> str:
        key = (self._location / remote.key).prefix
        try:
            response = self._client.head_object(Bucket=self._location.bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError:
            return ""
        return response.get("ChecksumCRC32", "")

    def _add_extra(self, remote: RemoteObject | None) -> None:
        assert remote is not None, "a pair has at least one side"
        self.summary.extra += 1
        if self._options.delete:
            if self._options.dry_run:
                self._log(f"would delete {self._location / remote.key}")
            else:
                self._extra_keys.append((self._location / remote.key).prefix)
        if len(self._extra_keys) == _MAX_KEYS_PER_DELETE:
            self._delete_extras()

    def _delete_extras(self) -> None:
        if not self._extra_keys:
            return
        request = {"Objects": [{"Key": key} for key in self._extra_keys], "Quiet": True}
        response = self._client.delete_objects(Bucket=self._location.bucket, Delete=request)
        if response.get("Errors"):
            first = response["Errors"][0]
            raise CloudError(f"{self._location}: can't delete {first['Key']}: {first['Code']}: {first['Message']}")
        self._extra_keys.clear()


def walk(folder: Path) -> Iterator[LocalFile]:
    """Yield the files below a folder, without junk files, in the order in which S3 lists keys: by their bytes.

    Links to folders are followed, except into a folder that the walk is in already, which would not end.
    """
    yield from _walk(str(folder), "", ())


def _walk(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[LocalFile]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        found = [(entry.name + "/" if entry.is_dir() else entry.name, entry) for entry in entries]
    # A folder sorts with its slash: "a-b" comes before "a/c".
    for name, entry in sorted(found, key=lambda pair: os.fsencode(pair[0])):
        if is_junk_file(entry.name):
            continue
        if name.endswith("/"):
            yield from _walk(entry.path, prefix + name, (*above, real))
        else:
            yield LocalFile(_check_utf8(prefix + name), entry.path, entry.stat().st_size)


def _check_utf8(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DataError(f"{os.fsencode(key)!r}: S3 keys must be UTF-8: rename the file") from None
    return key


def list_objects(client: Any, location: S3Location) -> Iterator[RemoteObject]:
    """Yield the objects below a location in the order of their keys, page by page."""
    prefix = f"{location.prefix}/" if location.prefix else ""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield RemoteObject(item["Key"][len(prefix) :], item["Size"], item["ETag"].strip('"'))


_Pair = tuple[LocalFile | None, RemoteObject | None]


def _join(files: Iterator[LocalFile], objects: Iterator[RemoteObject]) -> Iterator[_Pair]:
    """Join files and objects on their keys; both are sorted by them."""
    file, remote = next(files, None), next(objects, None)
    while file or remote:
        if remote is None or (file is not None and file.key.encode() < remote.key.encode()):
            yield file, None
            file = next(files, None)
        elif file is None or remote.key.encode() < file.key.encode():
            yield None, remote
            remote = next(objects, None)
        else:
            yield file, remote
            file, remote = next(files, None), next(objects, None)


class Checksums(NamedTuple):
    """What S3 reports of an object: its ETag, and the CRC-32 of the whole or of its parts, in base64."""

    etag: str
    crcs: frozenset[str]


def checksums(parts: Iterable[bytes]) -> Checksums:
    """Compute what S3 reports of an object that was uploaded in these parts."""
    md5s: list[bytes] = []
    crcs: list[bytes] = []
    whole = 0
    for part in parts:
        # MD5 only compares contents here; "usedforsecurity" allows it where FIPS mode forbids it.
        md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
        crcs.append(_big_endian(zlib.crc32(part)))
        whole = zlib.crc32(part, whole)
    full = base64.b64encode(_big_endian(whole)).decode()
    if len(md5s) == 1:
        return Checksums(md5s[0].hex(), frozenset({full}))
    of_parts = base64.b64encode(_big_endian(zlib.crc32(b"".join(crcs)))).decode()
    etag = hashlib.md5(b"".join(md5s), usedforsecurity=False).hexdigest()
    return Checksums(f"{etag}-{len(md5s)}", frozenset({full, f"{of_parts}-{len(crcs)}"}))


def _big_endian(crc: int) -> bytes:
    return crc.to_bytes(4, "big")


def _read_parts(file: LocalFile) -> Iterator[bytes]:
    with Path(file.path).open("rb") as opened:
        while part := opened.read(PART_SIZE):
            yield part


def content_type(key: str) -> str:
    """Return the media type for a key's extension."""
    extension = os.path.splitext(key)[1].lower()  # noqa: PTH122 (a key, not a path)
    return _CONTENT_TYPES.get(extension) or mimetypes.guess_type(f"x{extension}")[0] or "application/octet-stream"

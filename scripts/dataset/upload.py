"""A folder → objects under an S3 prefix: only what is not there yet, many at a time, in constant memory.

Both sides are read in the order of their keys, as S3 lists them, and compared as they go by. What is the same is told
by size and ETag, which the listing has for free: S3's ETag is the MD5 of what was put in one piece, and of the MD5s of
the pieces otherwise. Where it is neither (KMS encryption), the CRC-32 that every upload of ours carries is asked for,
object by object.
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

from aws.errors import CloudError, translate_errors
from classifier.errors import DataError
from dataset.listing import is_litter
from dataset.progress import progress

PIECE = 16 << 20  # files up to this size go in one piece, larger ones in pieces of it
_AHEAD = 4  # files waiting for each thread
_DELETED_AT_ONCE = 1000  # as many as S3 takes

_TYPES = {
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
class Place:
    """A bucket, and the start of the keys in it, without a slash at its end."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """``s3://bucket/prefix``.

        Raises:
            DataError: it is not such an address.
        """
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not bucket:
            raise DataError(f"{text!r} is not of the form s3://bucket/prefix")
        return cls(bucket, prefix.strip("/"))

    def __truediv__(self, name: str) -> "Place":
        return Place(self.bucket, f"{self.prefix}/{name}" if self.prefix else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


class LocalFile(NamedTuple):
    """``key`` is the path below the folder, with slashes."""

    key: str
    path: str
    size: int


class RemoteObject(NamedTuple):
    """``key`` is what follows the place's prefix."""

    key: str
    size: int
    etag: str


@dataclass
class Tally:
    """What an upload did, or in a dry run would do. ``extra`` objects are there, and not in the folder."""

    uploaded: int = 0
    uploaded_bytes: int = 0
    same: int = 0
    extra: int = 0


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to go about it: threads, whether to delete what the folder lacks, whether only to say what would be done."""

    jobs: int
    delete: bool = False
    dry_run: bool = False


def upload_folder(client: Any, folder: Path, place: Place, manner: Manner, say: Callable[[str], object]) -> Tally:
    """Make the objects under ``place`` what the folder holds; without ``manner.delete``, others stay.

    Raises:
        CloudError: S3 refuses, or can't be reached any more.
        DataError: a file's name is not UTF-8.
    """
    upload = _Upload(client, place, manner, say)
    total = sum(1 for _ in walk(folder))
    with translate_errors(str(place)), progress(f"uploading {folder.name}", total, unit="files") as advance:
        upload.run(_pairs(walk(folder), list_objects(client, place)), advance)
    return upload.tally


class _Upload:
    def __init__(self, client: Any, place: Place, manner: Manner, say: Callable[[str], object]) -> None:
        self._client, self._place, self._manner, self._say = client, place, manner, say
        self._extras: list[str] = []
        self.tally = Tally()

    def run(self, pairs: Iterable["_Pair"], advance: Callable[[int], object]) -> None:
        waiting: deque[tuple[LocalFile, Future[bool]]] = deque()
        pool = ThreadPoolExecutor(self._manner.jobs, thread_name_prefix="upload")
        try:
            for file, there in pairs:
                if file is None:
                    self._note_extra(there)
                    continue
                waiting.append((file, pool.submit(self._settle, file, there)))
                if len(waiting) >= self._manner.jobs * _AHEAD:
                    self._count(*waiting.popleft(), advance)
            while waiting:
                self._count(*waiting.popleft(), advance)
            self._delete_extras()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _count(self, file: LocalFile, sent: "Future[bool]", advance: Callable[[int], object]) -> None:
        if sent.result():
            self.tally.uploaded += 1
            self.tally.uploaded_bytes += file.size
            if self._manner.dry_run:
                self._say(f"would upload {file.path} to {self._place / file.key}")
        else:
            self.tally.same += 1
        advance(1)

    def _settle(self, file: LocalFile, there: RemoteObject | None) -> bool:
        """In a thread: upload the file unless it is there; tells whether it was uploaded."""
        key = (self._place / file.key).prefix
        if file.size > PIECE:
            if there and self._is_same(file, there, _pieces(file)):
                return False
            if not self._manner.dry_run:
                self._put_pieces(file, key)
            return True
        data = Path(file.path).read_bytes()
        if there and self._is_same(file, there, [data]):
            return False
        if not self._manner.dry_run:
            # The bytes themselves: with a file, botocore would read it twice and wait for S3's leave to send it.
            self._client.put_object(
                Bucket=self._place.bucket, Key=key, Body=data, ContentType=content_type(key), ChecksumAlgorithm="CRC32"
            )
        return True

    def _put_pieces(self, file: LocalFile, key: str) -> None:
        extra = {"ContentType": content_type(key), "ChecksumAlgorithm": "CRC32"}
        try:
            self._client.upload_file(file.path, self._place.bucket, key, ExtraArgs=extra, Config=_IN_PIECES)
        except S3UploadFailedError as error:
            raise CloudError(str(error)) from None

    def _is_same(self, file: LocalFile, there: RemoteObject, pieces: Iterable[bytes]) -> bool:
        if file.size != there.size:
            return False
        sums = checksums(pieces)
        return there.etag == sums.etag or self._crc(there) in sums.crcs

    def _crc(self, there: RemoteObject) -> str:
        key = (self._place / there.key).prefix
        try:
            answer = self._client.head_object(Bucket=self._place.bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError:
            return ""
        return answer.get("ChecksumCRC32", "")

    def _note_extra(self, there: RemoteObject | None) -> None:
        assert there is not None, "a pair has one side at least"
        self.tally.extra += 1
        if self._manner.delete:
            if self._manner.dry_run:
                self._say(f"would delete {self._place / there.key}")
            else:
                self._extras.append((self._place / there.key).prefix)
        if len(self._extras) == _DELETED_AT_ONCE:
            self._delete_extras()

    def _delete_extras(self) -> None:
        if not self._extras:
            return
        wanted = {"Objects": [{"Key": key} for key in self._extras], "Quiet": True}
        answer = self._client.delete_objects(Bucket=self._place.bucket, Delete=wanted)
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise CloudError(f"{self._place}: {first['Key']} can't be deleted: {first['Code']}: {first['Message']}")
        self._extras.clear()


_IN_PIECES = TransferConfig(multipart_threshold=PIECE + 1, multipart_chunksize=PIECE, use_threads=False)


def walk(folder: Path) -> Iterator[LocalFile]:
    """The files below a folder in the order in which S3 lists their keys: by their bytes."""
    yield from _walk(str(folder), "")


def _walk(folder: str, start: str) -> Iterator[LocalFile]:
    with os.scandir(folder) as entries:
        found = [(entry.name + "/" if entry.is_dir() else entry.name, entry) for entry in entries]
    # "a-b" comes before "a/c": a folder sorts with its slash.
    for name, entry in sorted(found, key=lambda pair: os.fsencode(pair[0])):
        if is_litter(entry.name):
            continue
        if name.endswith("/"):
            yield from _walk(entry.path, start + name)
        else:
            yield LocalFile(_utf8(start + name), entry.path, entry.stat().st_size)


def _utf8(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DataError(f"{os.fsencode(key)!r}: S3 takes only names in UTF-8: rename the file") from None
    return key


def list_objects(client: Any, place: Place) -> Iterator[RemoteObject]:
    """The objects under a place, a page at a time."""
    start = f"{place.prefix}/" if place.prefix else ""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=start):
        for item in page.get("Contents", ()):
            yield RemoteObject(item["Key"][len(start) :], item["Size"], item["ETag"].strip('"'))


_Pair = tuple[LocalFile | None, RemoteObject | None]


def _pairs(files: Iterator[LocalFile], objects: Iterator[RemoteObject]) -> Iterator[_Pair]:
    """Two sides in one order of keys → what stands at each key."""
    file, there = next(files, None), next(objects, None)
    while file or there:
        if there is None or (file is not None and file.key.encode() < there.key.encode()):
            yield file, None
            file = next(files, None)
        elif file is None or there.key.encode() < file.key.encode():
            yield None, there
            there = next(objects, None)
        else:
            yield file, there
            file, there = next(files, None), next(objects, None)


class Checksums(NamedTuple):
    """What S3 says of an object with these bytes: its ETag, and its CRC-32 as a whole or of its pieces."""

    etag: str
    crcs: frozenset[str]


def checksums(pieces: Iterable[bytes]) -> Checksums:
    md5s: list[bytes] = []
    crcs: list[bytes] = []
    whole = 0
    for piece in pieces:
        # MD5 tells what is the same, and keeps nobody out: "usedforsecurity" lets it run where FIPS forbids it.
        md5s.append(hashlib.md5(piece, usedforsecurity=False).digest())
        crcs.append(_big_endian(zlib.crc32(piece)))
        whole = zlib.crc32(piece, whole)
    full = base64.b64encode(_big_endian(whole)).decode()
    if len(md5s) == 1:
        return Checksums(md5s[0].hex(), frozenset({full}))
    of_pieces = base64.b64encode(_big_endian(zlib.crc32(b"".join(crcs)))).decode()
    etag = hashlib.md5(b"".join(md5s), usedforsecurity=False).hexdigest()
    return Checksums(f"{etag}-{len(md5s)}", frozenset({full, f"{of_pieces}-{len(crcs)}"}))


def _big_endian(crc: int) -> bytes:
    return crc.to_bytes(4, "big")


def _pieces(file: LocalFile) -> Iterator[bytes]:
    with Path(file.path).open("rb") as opened:
        while piece := opened.read(PIECE):
            yield piece


def content_type(key: str) -> str:
    extension = os.path.splitext(key)[1].lower()  # noqa: PTH122 (a key is no path)
    return _TYPES.get(extension) or mimetypes.guess_type(f"x{extension}")[0] or "application/octet-stream"

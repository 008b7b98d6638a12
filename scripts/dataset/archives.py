"""A zip or tar → files in a folder of ours. An archive is a stranger's: nothing it says is believed.

Written are plain files, at paths inside the folder, new ones only, as many and as large as allowed. Everything else is
left out and told by name.
"""

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from classifier.errors import DataError
from dataset.defects import Defect
from dataset.listing import is_litter
from dataset.progress import amount, progress

MAX_ENTRIES = 5_000_000
_BLOCK = 1 << 20
_COMPRESSIONS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MAX_HEADER = 1 << 24  # a tar's header can claim any length for a name, and tarfile would read it all


class _Entry(NamedTuple):
    name: str
    size: int
    unsafe: str
    open: Callable[[], IO[bytes]]


class TooLargeError(DataError):
    """An archive that holds more than is allowed."""


def is_archive(path: Path) -> bool:
    """By its content; by its name too, so that a damaged archive is told as one."""
    return path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path) or _is_archive_name(path.name))


def _is_archive_name(name: str) -> bool:
    return re.search(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+)$", name, re.IGNORECASE) is not None


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, OSError, zlib.error):
        return False


def extract(archive: Path, folder: Path, *, max_bytes: int, max_entries: int = MAX_ENTRIES) -> list[Defect]:
    """Extract into ``folder``, which is made. Gives the entries that were left out.

    Raises:
        DataError: no archive, a damaged or encrypted one, or one that holds more than allowed.
    """
    folder.mkdir(parents=True)
    with _entries(archive) as (entries, total):
        if total is not None:
            _check_room(archive, folder, total, max_bytes)
        return _Extraction(archive, folder, max_bytes, max_entries).run(entries)


def _check_room(archive: Path, folder: Path, total: int, max_bytes: int) -> None:
    """What a zip claims; what it then gives is counted again."""
    if total > max_bytes:
        raise TooLargeError(
            f"{archive.name} claims to hold {amount(total, 'B')}, more than --max-size allows "
            f"({amount(max_bytes, 'B')}); raise it if you trust the archive"
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DataError(f"{archive.name} holds {amount(total, 'B')}, and {folder.parent} has {amount(free, 'B')} left")


class _Extraction:
    def __init__(self, archive: Path, folder: Path, max_bytes: int, max_entries: int) -> None:
        self._archive, self._folder = archive, folder
        self._bytes_left, self._entries_left = max_bytes, max_entries
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._left_out: list[Defect] = []

    def run(self, entries: Iterator[_Entry]) -> list[Defect]:
        with progress(f"extracting {self._archive.name}", None, unit="files") as advance:
            for entry in entries:
                self._count_entry()
                reason = entry.unsafe or unsafe_name(entry.name)
                if reason:
                    self._leave_out("unsafe", entry, reason)
                elif not any(is_litter(part) for part in entry.name.split("/")):
                    self._extract(entry)
                advance(1)
        return self._left_out

    def _count_entry(self) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise TooLargeError(f"{self._archive.name} holds more than {self._max_entries:,} entries")

    def _extract(self, entry: _Entry) -> None:
        path = self._folder / entry.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                self._copy(entry, file)
        except FileExistsError:
            self._leave_out("unsafe", entry, "a second entry of this name")
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            path.unlink()
            self._leave_out("corrupt", entry, f"damaged in the archive: {error}")
        except OSError as error:
            if isinstance(error, (NotADirectoryError, IsADirectoryError)) or error.strerror == "File name too long":
                self._leave_out("unsafe", entry, f"can't be written: {error.strerror}")
            else:
                raise

    def _copy(self, entry: _Entry, file: IO[bytes]) -> None:
        with closing(entry.open()) as source:
            while block := source.read(_BLOCK):
                self._bytes_left -= len(block)
                if self._bytes_left < 0:
                    raise TooLargeError(
                        f"{self._archive.name} holds more than --max-size allows ({amount(self._max_bytes, 'B')}), "
                        f"at entry {entry.name!r}; raise it if you trust the archive"
                    )
                file.write(block)

    def _leave_out(self, kind: str, entry: _Entry, reason: str) -> None:
        self._left_out.append(Defect(kind, entry.name, reason))


def unsafe_name(name: str) -> str:
    """Why a path may not be written, or nothing."""
    parts = name.split("/")
    if name.startswith("/"):
        return "an absolute path"
    if re.match(r"[A-Za-z]:", name):
        return "a path on a drive"
    if "\\" in name:
        return "a path with backslashes"
    if ".." in parts:
        return "a path that leaves the folder"
    if not name.isprintable():
        return "a name with control characters"
    return "" if parts[-1] else "a file without a name"


@contextmanager
def _entries(archive: Path) -> Iterator[tuple[Iterator[_Entry], int | None]]:
    """The files and links of an archive, and for a zip the bytes that it claims to hold."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                yield _zip_entries(archive, file), sum(info.file_size for info in file.infolist())
        else:
            with _bounded_tar(archive) as file:
                yield _tar_entries(file), None
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{archive} can't be read as a zip: {error}") from None
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} can't be read as a zip or tar ({error}): it may be half a download; fetch it again"
        ) from None


def _zip_entries(archive: Path, file: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in file.infolist():
        if info.flag_bits & 1:
            raise DataError(f"{archive} is encrypted, at {info.filename!r}: extract it yourself and give the folder")
        if not info.is_dir():
            yield _Entry(info.filename, info.file_size, _zip_type(info), lambda info=info: file.open(info))


def _zip_type(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "a link" if kind == stat.S_IFLNK else "not a plain file"


@contextmanager
def _bounded_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as file:
        magic = file.read(6)
    opener = next((opener for start, opener in _COMPRESSIONS.items() if magic.startswith(start)), open)
    with opener(archive, "rb") as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
        yield tar


class _Bounded:
    """A stream whose reads are bounded."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {amount(size, 'B')}")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tar_entries(tar: tarfile.TarFile) -> Iterator[_Entry]:
    for member in tar:
        if not member.isdir():
            yield _Entry(member.name, member.size, _tar_type(member), lambda member=member: _open_member(tar, member))
        # tarfile remembers every member, and would hold them all in memory.
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
    _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end of the archive; the true end is zeros, or nothing."""
    stream: Any = tar.fileobj
    stream.seek(tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a damaged header in its midst")


def _open_member(file: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = file.extractfile(member)
    assert opened is not None, "only plain files are opened"
    return opened


def _tar_type(member: tarfile.TarInfo) -> str:
    if member.isreg():
        return ""
    return "a link" if member.issym() or member.islnk() else "not a plain file"

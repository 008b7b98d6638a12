"""Safe extraction of untrusted archives.

Nothing that an archive claims is trusted: neither names nor types nor sizes. Only regular files are written, only below
the target folder, never over a file that was there before, and only up to a limit. A refused archive leaves no files.

tarfile's extraction filters would do part of this, but exist only from Python 3.11.4 on; Debian 12 ships 3.11.2.
"""

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from classifier.errors import DataError

MAX_BYTES = 100 * 10**9
MAX_ENTRIES = 5_000_000
_BLOCK_SIZE = 1 << 20  # bytes
_COMPRESSIONS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MAX_HEADER = 1 << 24  # bytes; a tar header can claim a name of any length, and tarfile would read all of it


class ArchiveError(DataError):
    """An archive that is damaged, encrypted, unsafe, or holds too many entries."""


class ArchiveTooLargeError(ArchiveError):
    """An archive whose files take more bytes than allowed."""


class SkippedEntry(NamedTuple):
    """An entry that was not extracted, and why: unsafe, or damaged within the archive."""

    name: str
    reason: str
    is_damaged: bool = False


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar by its content, or by its name, so that a damaged archive is reported as one."""
    return path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path) or _is_archive_name(path.name))


def _is_archive_name(name: str) -> bool:
    return re.search(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+)$", name, re.IGNORECASE) is not None


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, OSError, zlib.error):
        return False


@dataclass(frozen=True, kw_only=True)
class _Options:
    """``strict`` refuses an archive with any unsafe entry, keeps empty folders, and of two equal names the last."""

    max_bytes: int
    max_entries: int = MAX_ENTRIES
    strict: bool = False
    ignore: Callable[[str], bool] = lambda _: False
    advance: Callable[[int], object] = lambda _: None


def extract(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    ignore: Callable[[str], bool] = lambda _: False,
    advance: Callable[[int], object] = lambda _: None,
) -> list[SkippedEntry]:
    """Extract the files of a zip or tar, without those that are unsafe or damaged.

    Args:
        folder: where to extract; it must not exist yet.
        max_bytes: the most that all files together may take.
        ignore: takes the name of a file or folder; what it returns true for is neither extracted nor reported.
        advance: called with 1 after each file, to show progress.

    Returns:
        The entries that were skipped.

    Raises:
        ArchiveError: the file is no archive, damaged or encrypted, or holds more than allowed.
        OSError: the archive can't be read, or the folder can't be written.
    """
    folder.mkdir(parents=True)
    options = _Options(max_bytes=max_bytes, max_entries=max_entries, ignore=ignore, advance=advance)
    try:
        with _translate_errors(archive):
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    _check_room(archive, folder, sum(info.file_size for info in file.infolist()), max_bytes)
                    return _Extraction(archive, folder, options).run(_zip_entries(archive, file))
            with _open_tar(archive) as tar:
                return _Extraction(archive, folder, options).run(_tar_entries(tar))
    except BaseException:
        shutil.rmtree(folder)
        raise


def unpack_tar(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a tar completely or not at all. Files of the same name in the folder are replaced.

    Raises:
        ArchiveError: the file is no tar or damaged, holds more than allowed, or has an entry that leads out of the
            folder or is neither a file nor a folder.
        OSError: the archive can't be read, or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as staging:
        with _translate_errors(archive), _open_tar(archive) as tar:
            _Extraction(archive, Path(staging), _Options(max_bytes=max_bytes, strict=True)).run(_tar_entries(tar))
        _move_tree(Path(staging), folder)


def _move_tree(source: Path, folder: Path) -> None:
    for path in sorted(source.rglob("*")):  # a folder sorts before what it holds
        target = folder / path.relative_to(source)
        if not path.is_dir():
            path.replace(target)
        elif target.is_symlink():
            raise ArchiveError(f"{target} is a link: files are not unpacked through it")
        else:
            target.mkdir(exist_ok=True)


@contextmanager
def _translate_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ArchiveError(f"{archive} can't be read as a zip: {error}") from None
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error) as error:
        raise ArchiveError(
            f"{archive} can't be read as a zip or tar ({error}); if it is an incomplete download, fetch it again"
        ) from None


def _check_room(archive: Path, folder: Path, total: int, max_bytes: int) -> None:
    """Check the size that a zip claims, before anything is written; the bytes are counted again as they are read."""
    if total > max_bytes:
        raise ArchiveTooLargeError(f"{archive.name} claims {total:,} bytes, more than the limit of {max_bytes:,}")
    free = shutil.disk_usage(folder).free
    if total > free:
        raise ArchiveError(f"{archive.name} holds {total:,} bytes, and the disk of {folder} has {free:,} left")


class _Entry(NamedTuple):
    """``problem`` is why its type makes it unsafe, if it does."""

    name: str
    is_folder: bool
    problem: str
    open: Callable[[], IO[bytes]]


class _Extraction:
    """One run over the entries of an archive, with what is left of its limits."""

    def __init__(self, archive: Path, folder: Path, options: _Options) -> None:
        self._archive, self._folder, self._options = archive, folder, options
        self._bytes_left, self._entries_left = options.max_bytes, options.max_entries
        self._skipped: list[SkippedEntry] = []

    def run(self, entries: Iterable[_Entry]) -> list[SkippedEntry]:
        for entry in entries:
            self._count_entry()
            reason = entry.problem or unsafe_name(entry.name)
            if entry.is_folder:
                self._make_folder(entry, reason)
            else:
                self._extract_file(entry, reason)
                self._options.advance(1)
        return self._skipped

    def _count_entry(self) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise ArchiveError(f"{self._archive.name} holds more than {self._options.max_entries:,} entries")

    def _make_folder(self, entry: _Entry, reason: str) -> None:
        if not self._options.strict:
            return  # made with the first file in it
        if reason:
            self._skip(entry, reason)
        (self._folder / entry.name).mkdir(parents=True, exist_ok=True)

    def _extract_file(self, entry: _Entry, reason: str) -> None:
        if reason:
            self._skip(entry, reason)
        elif not any(self._options.ignore(part) for part in entry.name.split("/")):
            self._write(entry, self._folder / entry.name)

    def _write(self, entry: _Entry, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if self._options.strict else "xb") as file:
                self._copy(entry, file)
        except FileExistsError:
            self._skip(entry, "a second entry of this name")
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            path.unlink()
            self._skip(entry, f"damaged in the archive: {error}", is_damaged=True)
        except OSError as error:
            if isinstance(error, (NotADirectoryError, IsADirectoryError)) or error.strerror == "File name too long":
                self._skip(entry, f"can't be written: {error.strerror}")
            else:
                raise

    def _copy(self, entry: _Entry, file: IO[bytes]) -> None:
        with closing(entry.open()) as source:
            while block := source.read(_BLOCK_SIZE):
                self._bytes_left -= len(block)
                if self._bytes_left < 0:
                    raise ArchiveTooLargeError(
                        f"{self._archive.name} holds more than the limit of {self._options.max_bytes:,} bytes "
                        f"(exceeded at entry {entry.name!r})"
                    )
                file.write(block)

    def _skip(self, entry: _Entry, reason: str, *, is_damaged: bool = False) -> None:
        if self._options.strict:
            raise ArchiveError(f"{self._archive.name}: entry {entry.name!r} is refused: {reason}")
        self._skipped.append(SkippedEntry(entry.name, reason, is_damaged))


def unsafe_name(name: str) -> str:
    """Return why a file of this name must not be written, or an empty string."""
    parts = name.split("/")
    if name.startswith("/"):
        return "an absolute path"
    if re.match(r"[A-Za-z]:", name):
        return "a path on a drive"
    if "\\" in name:
        return "a path with backslashes"
    if ".." in parts:
        return "a path that leads out of the folder"
    if not name.isprintable():
        return "a name with control characters"
    return "" if parts[-1] else "a file without a name"


def _zip_entries(archive: Path, file: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in file.infolist():
        if info.flag_bits & 1:
            raise ArchiveError(f"{archive} is encrypted (entry {info.filename!r}): extract it and pass the folder")
        yield _Entry(info.filename, info.is_dir(), _zip_problem(info), lambda info=info: file.open(info))


def _zip_problem(info: zipfile.ZipInfo) -> str:
    """Return why an entry is no regular file, by the Unix mode in the upper half of its attributes; 0 is no mode."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "a link" if kind == stat.S_IFLNK else "not a regular file"


@contextmanager
def _open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as file:
        magic = file.read(6)
    opener = next((opener for start, opener in _COMPRESSIONS.items() if magic.startswith(start)), open)
    with opener(archive, "rb") as stream, tarfile.open(fileobj=_BoundedReader(stream), mode="r:") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
        yield tar


class _BoundedReader:
    """A stream that refuses to read more at once than a tar's headers need."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tar_entries(tar: tarfile.TarFile) -> Iterator[_Entry]:
    for member in tar:
        problem = "" if member.isdir() else _tar_problem(member)
        yield _Entry(member.name, member.isdir(), problem, lambda member=member: _open_member(tar, member))
        # tarfile keeps every member: without this, memory would grow with the number of entries.
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
    _check_end(tar)


def _tar_problem(member: tarfile.TarInfo) -> str:
    if member.isreg():
        return ""
    return "a link" if member.issym() or member.islnk() else "not a regular file"


def _open_member(file: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = file.extractfile(member)
    assert opened is not None, "only regular files are opened"
    return opened


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise if there is data after the end: tarfile takes a damaged header for the end, which is zeros or nothing."""
    stream: Any = tar.fileobj
    stream.seek(tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a damaged header in the middle")

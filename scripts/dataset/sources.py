"""The photos of SOURCE, whatever kind it is: downloaded and extracted where needed, then listed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from classifier.archives import MAX_BYTES, ArchiveTooLargeError, extract, is_archive
from classifier.contract.channels import is_junk_file, suggest_nested_data
from classifier.errors import DataError
from dataset.annotations import is_manifest, is_polyvore, list_manifest, list_polyvore, list_table
from dataset.class_folders import list_class_folders
from dataset.defects import Defect
from dataset.download import download, is_url
from dataset.listing import Listing, read_label_names
from dataset.progress import progress

_TABLES = (".csv", ".tsv", ".lst")


@dataclass(frozen=True, kw_only=True)
class Source:
    """SOURCE, and the options of the command line that say how to read it. ``max_bytes`` bounds the extracted files."""

    text: str
    images: Path | None = None
    labels: Path | None = None
    label_attribute: str | None = None
    sha256: str | None = None
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class FoundPhotos:
    """A listing, and the archive that it was extracted from into the working directory, if any."""

    listing: Listing
    archive: Path | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the files are free to be moved."""
        return self.archive is not None

    def suggest_folder(self) -> str:
        """Return the end of an error message: a nested folder that would do as the source, if there is one."""
        suggestion = suggest_nested_data(self.listing.root)
        return _name_archive(suggestion, self.listing.root, self.archive) if self.archive else suggestion


def find_photos(source: Source, work: Path, log: Callable[[str], object]) -> FoundPhotos:
    """List the photos of a source.

    Args:
        work: the working directory, which gets downloads (``download/``) and extracted files (``extracted/``).

    Raises:
        DataError: the source does not exist, is of no supported kind, or is damaged.
    """
    if is_url(source.text):
        path, digest = download(source.text, work / "download", max_bytes=source.max_bytes, sha256=source.sha256)
        if not source.sha256:
            log(f"SHA-256 of the download: {digest}; pass it as --sha256 to be sure of the same file next time")
        if not is_archive(path):
            path.unlink()
            raise DataError(f"{source.text} is not a zip or tar, but perhaps a web page: open it in a browser")
        return _find_in(path, source, work)
    path = Path(source.text).expanduser()
    if source.sha256:
        raise DataError("--sha256 is only for a URL; local files are not checked")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return _find_in(path, source, work)


def _find_in(path: Path, source: Source, work: Path) -> FoundPhotos:
    if is_archive(path):
        extracted = work / "extracted"
        skipped = _extract(path, extracted, source.max_bytes)
        try:
            listing = list_class_folders(extracted)
        except DataError as error:
            raise DataError(_name_archive(str(error), extracted, path)) from None
        listing.defects += skipped
        listing.warnings = [_name_archive(warning, extracted, path) for warning in listing.warnings]
        return FoundPhotos(listing, archive=path)
    listing = _list(path, source)
    return FoundPhotos(replace(listing, root=listing.root.resolve()))


def _name_archive(message: str, extracted: Path, archive: Path) -> str:
    """Name the archive in a message about the folder of its extracted files, which the user can't pass."""
    named = message.replace(str(extracted), archive.name)
    return named if named == message else f"{named} Extract the archive first."


def _extract(archive: Path, folder: Path, max_bytes: int) -> list[Defect]:
    try:
        with progress(f"extracting {archive.name}", None, unit="files") as advance:
            skipped = extract(archive, folder, max_bytes=max_bytes, ignore=is_junk_file, advance=advance)
    except ArchiveTooLargeError as error:
        raise DataError(f"{error}; raise --max-size if you trust the archive") from None
    return [Defect("corrupt" if entry.is_damaged else "unsafe", entry.name, entry.reason) for entry in skipped]


def _list(path: Path, source: Source) -> Listing:
    names = read_label_names(source.labels) if source.labels else {}
    if path.is_dir():
        if is_polyvore(path):
            return list_polyvore(path, source.images, names)
        return list_class_folders(path)
    if source.images and not source.images.is_dir():
        raise DataError(f"--images {source.images}: no such folder")
    if path.suffix.lower() in _TABLES:
        return list_table(path, source.images, names)
    if is_manifest(path):
        return list_manifest(path, source.images, names, source.label_attribute)
    if path.suffix.lower() == ".json":
        return list_polyvore(path, source.images, names)
    raise DataError(
        f"{path} is not a supported source: pass a folder, a zip or tar, a CSV, an .lst, a manifest or a Polyvore JSON"
    )

"""What SOURCE says → a listing of photos, downloaded and extracted where need be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from classifier.errors import DataError
from dataset.archives import extract, is_archive
from dataset.class_folders import list_class_folders
from dataset.download import download, is_url
from dataset.labels import read_names
from dataset.listing import Listing
from dataset.manifests import holds_outfits, is_manifest, list_manifest, list_outfits
from dataset.tables import list_table

_TABLES = (".csv", ".tsv", ".lst")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the command line says about where the photos come from."""

    text: str
    images: Path | None = None
    labels: Path | None = None
    label_attribute: str | None = None
    sha256: str | None = None
    max_bytes: int = 100 * 10**9


@dataclass(frozen=True)
class Found:
    """A listing, and whether its files are ours, extracted into the work folder, so that they may be moved."""

    listing: Listing
    ours: bool


def find_photos(source: Source, work: Path, say: Callable[[str], object]) -> Found:
    """List the photos; ``work`` takes downloads (``download/``) and extracted files (``extracted/``).

    Raises:
        DataError: the source is not there, or is none of the kinds that are read.
    """
    if is_url(source.text):
        path, digest = download(source.text, work / "download", max_bytes=source.max_bytes, sha256=source.sha256)
        if not source.sha256:
            say(f"its SHA-256 is {digest}; give it as --sha256 to be sure of the same file next time")
        if not is_archive(path):
            path.unlink()
            raise DataError(f"{source.text} is not a zip or tar: a web page, perhaps; look at it in a browser")
        return _find_in(path, source, work)
    path = Path(source.text).expanduser()
    if source.sha256:
        raise DataError("--sha256 is for a URL; a file on this machine is taken as it is")
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return _find_in(path, source, work)


def _find_in(path: Path, source: Source, work: Path) -> Found:
    if is_archive(path):
        extracted = work / "extracted"
        left_out = extract(path, extracted, max_bytes=source.max_bytes)
        listing = list_class_folders(extracted)
        listing.defects += left_out
        return Found(listing, ours=True)
    listing = _list(path, source)
    return Found(replace(listing, root=listing.root.resolve()), ours=False)


def _list(path: Path, source: Source) -> Listing:
    names = read_names(source.labels) if source.labels else {}
    if path.is_dir():
        if holds_outfits(path):
            return list_outfits(path, source.images, names)
        return list_class_folders(path)
    if source.images and not source.images.is_dir():
        raise DataError(f"--images {source.images}: there is no such folder")
    if path.suffix.lower() in _TABLES:
        return list_table(path, source.images, names)
    if is_manifest(path):
        return list_manifest(path, source.images, names, source.label_attribute)
    if path.suffix.lower() == ".json":
        return list_outfits(path, source.images, names)
    raise DataError(f"{path} is none of what is read: a folder, a zip or tar, a CSV, .lst, manifest or Polyvore JSON")

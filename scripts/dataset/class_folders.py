"""A folder of class folders, or of splits of class folders → a listing."""

import os
from collections.abc import Iterator
from pathlib import Path

from classifier.errors import DataError
from classifier.vision.images import EXTENSIONS
from dataset.defects import Defect
from dataset.listing import Listing, Photo, split_name, without_litter

_MAX_WRAPPERS = 4


def list_class_folders(root: Path) -> Listing:
    """Every file of every class folder, below at most a few folders that hold nothing but one other.

    A folder ``train`` that itself holds no folders is a class of that name.

    Raises:
        DataError: no class folder is there.
    """
    top = _unwrap(root)
    listing = Listing(root)
    folders, files = _entries(top)
    splits = _find_splits(folders)
    for split, folder in splits:
        _list_classes(listing, folder, split)
    if not splits:
        _list_classes(listing, top, None)
    else:
        _note_strays(listing, files + [entry for entry in folders if Path(entry) not in {path for _, path in splits}])
    if not listing.photos:
        raise DataError(_explain_nothing(root, listing))
    return listing


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Folders and files, without litter. Symbolic links are followed, as by any copying of a user's own folder."""
    with os.scandir(folder) as entries:
        found = without_litter(entries)
    return [entry.path for entry in found if entry.is_dir()], [entry.path for entry in found if not entry.is_dir()]


def _unwrap(root: Path) -> Path:
    """``dogImages/`` in ``dogImages.zip``: a folder that holds one folder, which holds folders, and no photos."""
    folder = root
    for _ in range(_MAX_WRAPPERS):
        folders, files = _entries(folder)
        if len(folders) != 1 or any(_is_photo_name(file) for file in files):
            break
        inner = Path(folders[0])
        inner_folders, _ = _entries(inner)
        if not inner_folders or split_name(inner.name):
            break
        folder = inner
    return folder


def _find_splits(folders: list[str]) -> list[tuple[str, Path]]:
    """Splits by their folders' names, if there is one for training and each holds class folders."""
    named = [(split_name(Path(folder).name), Path(folder)) for folder in folders]
    splits = [(name, folder) for name, folder in named if name and _entries(folder)[0]]
    names = [name for name, _ in splits]
    if len(names) != len(set(names)):
        twins = ", ".join(folder.name for _, folder in splits)
        raise DataError(f"{splits[0][1].parent}: two folders mean the same split: {twins}; keep one of each")
    return splits if "train" in names else []


def _list_classes(listing: Listing, folder: Path, split: str | None) -> None:
    classes, strays = _entries(folder)
    for path in classes:
        label = Path(path).name
        for place in _walk(path, listing.root):
            listing.photos.append(Photo(place, label, split))
    _note_strays(listing, strays)


def _walk(folder: str, root: Path) -> Iterator[str]:
    folders, files = _entries(Path(folder))
    for file in files:
        yield _below(file, root)
    for inner in folders:
        if not _leads_back(inner):
            yield from _walk(inner, root)


def _below(path: str, root: Path) -> str:
    return path.removeprefix(os.path.join(root, ""))  # noqa: PTH118 (a hundred thousand times)


def _leads_back(folder: str) -> bool:
    """Whether a link points to a folder above itself, so that following it would never end."""
    path = Path(folder)
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _note_strays(listing: Listing, paths: list[str]) -> None:
    """Photos outside every class folder are told by name; a README is nobody's loss."""
    for path in paths:
        places = list(_walk(path, listing.root)) if Path(path).is_dir() else [_below(path, listing.root)]
        listing.defects += [
            Defect("misplaced", place, "lies in no class folder") for place in places if _is_photo_name(place)
        ]


def _is_photo_name(path: str) -> bool:
    return Path(path).suffix.lower() in EXTENSIONS


def _explain_nothing(root: Path, listing: Listing) -> str:
    if listing.defects:
        return (
            f"{root} holds photos but no class folders: put the photos of each class into a folder of its own, "
            "or give a CSV of path and label"
        )
    return f"{root} holds no class folders with files in them: give a folder with one folder of photos for each class"

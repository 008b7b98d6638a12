"""Listing of a folder of class folders, or of splits of class folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from classifier.contract.channels import (
    check_classes,
    describe_nested_classes,
    has_image_extension,
    is_junk_file,
    photo_channel,
    suggest_nested_data,
)
from classifier.errors import DataError
from dataset.defects import Defect
from dataset.listing import Listing, Photo

_MAX_WRAPPERS = 4  # folders around the class folders that hold nothing but one other folder


def list_class_folders(root: Path) -> Listing:
    """List every file of every class folder.

    The class folders may be nested in up to four folders that each hold nothing but the next. A folder ``train`` that
    itself holds no folders is a class of that name.

    Raises:
        DataError: there is no class folder, two folders stand for the same split, or splits are in a folder beside
            others.
    """
    top = _unwrap(root)
    listing = Listing(root)
    folders, files = _scan(top)
    splits = _find_splits(folders)
    for split, folder in splits:
        _list_classes(listing, folder, split)
    if not splits:
        check_classes(top)
        _list_classes(listing, top, None)
    else:
        others = [entry for entry in folders if Path(entry) not in {path for _, path in splits}]
        _add_misplaced(listing, files + others)
    if not listing.photos:
        raise DataError(_explain_empty(root, listing) + suggest_nested_data(root))
    return listing


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of folders and of files in a folder, sorted, without junk files; symbolic links are followed."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not is_junk_file(entry.name)), key=lambda entry: entry.name)
    return [entry.path for entry in found if entry.is_dir()], [entry.path for entry in found if not entry.is_dir()]


def _unwrap(root: Path) -> Path:
    """Skip folders such as ``dogImages/`` in ``dogImages.zip``, which hold one folder of folders and no photos."""
    folder = root
    for _ in range(_MAX_WRAPPERS):
        folders, files = _scan(folder)
        if len(folders) != 1 or any(has_image_extension(file) for file in files):
            break
        inner = Path(folders[0])
        inner_folders, _ = _scan(inner)
        if not inner_folders or photo_channel(inner.name):
            break
        folder = inner
    return folder


def _find_splits(folders: list[str]) -> list[tuple[str, Path]]:
    """Return the folders named as splits that hold class folders; none unless one of them is for training."""
    named = [(photo_channel(Path(folder).name), Path(folder)) for folder in folders]
    splits = [(name, folder) for name, folder in named if name and _scan(folder)[0]]
    names = [name for name, _ in splits]
    if len(names) != len(set(names)):
        found = ", ".join(folder.name for _, folder in splits)
        raise DataError(f"{splits[0][1].parent}: two folders for the same split among {found}; keep one for each split")
    return splits if "train" in names else []


def _list_classes(listing: Listing, folder: Path, split: str | None) -> None:
    classes, files = _scan(folder)
    for path in classes:
        label = Path(path).name
        for file in _walk(path, listing.root):
            listing.photos.append(Photo(file, label, split))
    if warning := describe_nested_classes(folder, suggest=split is None):
        listing.warnings.append(warning)
    _add_misplaced(listing, files)


def _walk(folder: str, root: Path) -> Iterator[str]:
    folders, files = _scan(Path(folder))
    for file in files:
        yield _relative_path(file, root)
    for inner in folders:
        if not _links_to_parent(inner):
            yield from _walk(inner, root)


def _relative_path(path: str, root: Path) -> str:
    return path.removeprefix(os.path.join(root, ""))  # noqa: PTH118 (called a hundred thousand times)


def _links_to_parent(folder: str) -> bool:
    """Whether a link points to a folder above itself, so that following it would never end."""
    path = Path(folder)
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _add_misplaced(listing: Listing, paths: list[str]) -> None:
    """Report the photos outside of every class folder; other files, such as a README, are ignored."""
    for path in paths:
        files = list(_walk(path, listing.root)) if Path(path).is_dir() else [_relative_path(path, listing.root)]
        listing.defects += [
            Defect("misplaced", file, "not in any class folder") for file in files if has_image_extension(file)
        ]


def _explain_empty(root: Path, listing: Listing) -> str:
    if listing.defects:
        return (
            f"{root} holds photos but no class folders: put the photos of each class into a folder of its own, "
            "or pass a CSV of paths and labels"
        )
    return f"{root} holds no class folders with files in them: pass a folder with one folder of photos for each class"

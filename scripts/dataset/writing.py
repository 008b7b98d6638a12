"""Output of the selected photos: class folders, and tar shards in the WebDataset layout."""

import io
import os
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dataset.defects import Actions
from dataset.inspection import staging_path
from dataset.listing import SPLITS
from dataset.selection import SelectedPhoto, shuffle_key


def write_class_folders(photos: Sequence[SelectedPhoto], work: Path, actions: Actions) -> list[str]:
    """Move every staged photo to ``<split>/<class>/<name>`` below ``work``.

    Returns:
        The new paths, relative to ``work`` and in the same order.
    """
    names: dict[str, set[str]] = defaultdict(set)
    paths: list[str] = []
    for item in photos:
        folder = f"{item.photo.split}/{item.photo.label}"
        if folder not in names:
            (work / folder).mkdir(parents=True)
        name = _unique_name(_file_name(item, actions), names[folder])
        os.rename(staging_path(work, item.number), work / folder / name)  # noqa: PTH104 (called a hundred thousand times)
        paths.append(f"{folder}/{name}")
    return paths


def _file_name(item: SelectedPhoto, actions: Actions) -> PurePosixPath:
    name = PurePosixPath(PurePosixPath(item.photo.path).name)
    found = item.inspection
    if not found.extension or (found.defect == "extension" and actions["extension"] == "keep" and not found.reencoded):
        return name
    # "photo.dat" that is a JPEG becomes "photo.jpg"; "my.summer 1", which has no extension, becomes "my.summer 1.jpg".
    if name.suffix[1:].isalnum():
        return name.with_suffix(found.extension)
    return PurePosixPath(f"{name}{found.extension}")


def _unique_name(name: PurePosixPath, taken: set[str]) -> str:
    """Return the name, or ``name-2`` if it is taken; case is ignored, as many file systems do."""
    candidate, number = name.name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name.stem}-{number}{name.suffix}"
    taken.add(candidate.casefold())
    return candidate


def write_shards(
    photos: Sequence[SelectedPhoto], paths: Sequence[str], work: Path, *, photos_per_shard: int, seed: int
) -> None:
    """Write ``shards/<split>/<split>-000000.tar`` and so on, each with shuffled photos of all classes.

    A photo's ``.cls`` file holds the index of its class among the lines of ``shards/classes.txt``.

    Args:
        paths: where the photos were written, relative to ``work``.
    """
    classes = sorted({item.photo.label for item in photos})
    indices = {label: index for index, label in enumerate(classes)}
    folder = work / "shards"
    folder.mkdir()
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
    shuffled = sorted(zip(photos, paths, strict=True), key=lambda pair: shuffle_key(pair[0], seed))
    for split in SPLITS:
        files = [(work / path, indices[item.photo.label]) for item, path in shuffled if item.photo.split == split]
        for start in range(0, len(files), photos_per_shard):
            path = folder / split / f"{split}-{start // photos_per_shard:06}.tar"
            _write_shard(path, files[start : start + photos_per_shard], start)


def _write_shard(path: Path, photos: Sequence[tuple[Path, int]], start: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (photo, label) in enumerate(photos, start):
            _add(tar, f"{number:09}{photo.suffix.lower()}", photo.read_bytes())
            _add(tar, f"{number:09}.cls", str(label).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time and owner, so that the same photos give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

"""The output directory OUT: class folders, and tar shards in the WebDataset layout.

It is staged in ``OUT.part`` and renamed when it is complete, so whatever is called OUT is complete. A failed run leaves
only its downloads in ``OUT.part``, which the next run resumes. Files that this command did not write are never touched.
"""

import fcntl
import io
import os
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from classifier.contract.channels import CLASSES_FILE, has_image_extension
from classifier.errors import ConfigError
from dataset.defects import Actions
from dataset.inspection import staging_path
from dataset.listing import SPLITS
from dataset.selection import SelectedPhoto, shuffle_key

RECORD = Path("report", "prepared.json")  # in every complete OUT
_MARKER = ".prepare_data"  # in every OUT.part
_DOWNLOADS = "download"


@contextmanager
def stage_output(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yield a working directory that becomes ``out`` if the block succeeds.

    Args:
        replace: whether to replace an ``out`` that this command wrote.

    Raises:
        ConfigError: ``out`` or its working directory holds something that would be lost, or another run is using it.
    """
    _check_out(out, replace)
    part = out.with_name(f"{out.name}.part")
    _check_part(part)
    part.mkdir(parents=True, exist_ok=True)
    with (part / _MARKER).open("w") as marker:
        _lock(marker.fileno(), out)
        _clear(part, keep={_MARKER, _DOWNLOADS})
        try:
            yield part
        except BaseException:
            _clean_up(part)
            raise
        _clear(part, keep={*SPLITS, "shards", "report"})
        _swap(part, out)


def _check_out(out: Path, replace: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise ConfigError(f"{out} exists and was not written by this command: choose another folder")
    if not replace:
        raise ConfigError(f"{out} exists already: choose another folder, or pass --replace to write it again")


def _check_part(part: Path) -> None:
    if part.exists() and not (part / _MARKER).is_file():
        raise ConfigError(f"{part} is needed for unfinished work, and was not written by this command: move it away")


def _lock(marker: int, out: Path) -> None:
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another run is writing {out}: wait for it to finish") from None


def _clear(part: Path, *, keep: set[str]) -> None:
    for entry in part.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _clean_up(part: Path) -> None:
    """After a failure or Ctrl-C, leave only what the next run can use."""
    _clear(part, keep={_MARKER, _DOWNLOADS})
    if not (part / _DOWNLOADS).exists():
        shutil.rmtree(part)


def _swap(part: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


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

    A photo's ``.cls`` file holds the index of its class among the lines of ``classes.txt``, beside the shards. Its name
    is its number in the order in which training reads class folders, so training on either gives the same model.

    Args:
        paths: where the photos were written, relative to ``work``.
    """
    classes = sorted({item.photo.label for item in photos})
    for split in SPLITS:
        found = [(item, path) for item, path in zip(photos, paths, strict=True) if item.photo.split == split]
        if not found:
            continue
        found.sort(key=lambda pair: pair[1].split("/"))
        numbered = [
            _ShardPhoto(f"{number:09}", work / path, classes.index(item.photo.label), shuffle_key(item, seed))
            for number, (item, path) in enumerate(found)
        ]
        numbered.sort(key=lambda photo: photo.position)
        folder = work / "shards" / split
        folder.mkdir(parents=True)
        (folder / CLASSES_FILE).write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
        for number, start in enumerate(range(0, len(numbered), photos_per_shard)):
            _write_shard(folder / f"{split}-{number:06}.tar", numbered[start : start + photos_per_shard])


class _ShardPhoto(NamedTuple):
    """A photo to be written to a shard; ``position`` determines its place among the others of its split."""

    key: str
    path: Path
    label: int
    position: tuple[bytes, str]


def _write_shard(path: Path, photos: Sequence[_ShardPhoto]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for photo in photos:
            # Readers of shards go by the extension, and the content is what decides how a photo is decoded.
            extension = photo.path.suffix.lower() if has_image_extension(photo.path) else ".jpg"
            _add(tar, f"{photo.key}{extension}", photo.path.read_bytes())
            _add(tar, f"{photo.key}.cls", str(photo.label).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time and owner, so that the same photos give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

"""Placed photos → tar files in WebDataset's layout: ``000000042.jpg`` and ``000000042.cls``, in random order."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from launch.dataset.listing import SPLITS
from launch.dataset.selection import Chosen, lot


def write_shards(chosen: Sequence[Chosen], places: Sequence[str], work: Path, *, num_photos: int, seed: int) -> None:
    """``shards/<split>/<split>-000000.tar`` of ``num_photos`` each; the classes are the lines of ``classes.txt``."""
    classes = sorted({item.photo.label for item in chosen})
    numbers = {label: number for number, label in enumerate(classes)}
    folder = work / "shards"
    folder.mkdir()
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
    # Sorted by lot alone, classes are mixed: whoever reads a shard from front to back sees all of them.
    drawn = sorted(zip(chosen, places, strict=True), key=lambda pair: lot(pair[0], seed))
    for split in SPLITS:
        own = [(work / place, numbers[item.photo.label]) for item, place in drawn if item.photo.split == split]
        for start in range(0, len(own), num_photos):
            path = folder / split / f"{split}-{start // num_photos:06}.tar"
            _write_shard(path, own[start : start + num_photos], start)


def _write_shard(path: Path, photos: Sequence[tuple[Path, int]], start: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (photo, label) in enumerate(photos, start):
            _add(tar, f"{number:09}{photo.suffix.lower()}", photo.read_bytes())
            _add(tar, f"{number:09}.cls", str(label).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """No time and no owner: the same photos give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

"""The chosen photos' bytes, put aside → ``<split>/<class>/<name>``, each name once."""

import io
import os
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dataset.defects import Actions
from dataset.inspection import aside
from dataset.listing import SPLITS
from dataset.selection import Chosen, lot


def place_photos(chosen: Sequence[Chosen], work: Path, actions: Actions) -> list[str]:
    """Move every photo into its class folder below ``work``; gives their paths there, in the same order."""
    taken: dict[str, set[str]] = defaultdict(set)
    places: list[str] = []
    for item in chosen:
        folder = f"{item.photo.split}/{item.photo.label}"
        if folder not in taken:
            (work / folder).mkdir(parents=True)
        name = _free_name(_name(item, actions), taken[folder])
        os.rename(aside(work, item.number), work / folder / name)  # noqa: PTH104 (a hundred thousand times)
        places.append(f"{folder}/{name}")
    return places


def _name(item: Chosen, actions: Actions) -> PurePosixPath:
    name = PurePosixPath(PurePosixPath(item.photo.place).name)
    facts = item.facts
    if not facts.extension or (facts.kind == "extension" and actions["extension"] == "keep" and not facts.fixed):
        return name
    # "photo.dat" that is a JPEG becomes "photo.jpg"; "my.summer" without an extension keeps its summer.
    return (
        PurePosixPath(f"{name}{facts.extension}")
        if not name.suffix[1:].isalnum()
        else name.with_suffix(facts.extension)
    )


def _free_name(name: PurePosixPath, taken: set[str]) -> str:
    """The name, or ``name-2``; upper and lower case are one, as they are on many disks."""
    candidate, number = name.name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name.stem}-{number}{name.suffix}"
    taken.add(candidate.casefold())
    return candidate


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

"""The chosen photos' bytes, put aside → ``<split>/<class>/<name>``, each name once."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from launch.dataset.checking import aside
from launch.dataset.defects import Actions
from launch.dataset.selection import Chosen


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

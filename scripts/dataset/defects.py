"""Kinds of defects of photos, and the actions that each kind allows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from classifier.errors import ConfigError, did_you_mean
from classifier.vision.images import MAX_DECODED


class Kind(NamedTuple):
    """A kind of defect. The first of ``actions`` is the default."""

    meaning: str
    actions: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "corrupt": Kind("an image that cannot be decoded", ("drop",)),
    "truncated": Kind("an image whose end is missing", ("drop", "repair")),
    "too-large": Kind(f"an image that takes more than {MAX_DECODED >> 20:,} MB to decode", ("drop",)),
    "not-image": Kind("not an image, whatever its name says", ("drop",)),
    "extension": Kind("the extension of another format", ("repair", "keep", "drop")),
    "tiny": Kind("a side shorter than --min-side", ("drop", "keep")),
    "conflict": Kind("the same bytes in two classes", ("drop", "keep")),
    "leak": Kind("the same bytes in two splits", ("drop", "keep")),
    "repeat": Kind("the same bytes again in the same class and split", ("drop", "keep")),
    "near-duplicate": Kind("looks like another photo, whose bytes differ", ("keep", "drop")),
    "misplaced": Kind("a photo outside of the class folders", ("drop",)),
    "missing": Kind("listed by the source, but not found or not readable", ("drop",)),
    "unsafe": Kind("an archive entry that is a link, a device or has an unsafe path", ("drop",)),
}

OUTCOMES = {"drop": "left out", "keep": "kept", "repair": "repaired"}

Actions = Mapping[str, str]  # by kind of defect: drop, keep or repair


class Defect(NamedTuple):
    """A defect of one photo, and the action that was taken: ``drop``, ``keep`` or ``repair``."""

    kind: str
    path: str
    reason: str
    action: str = "drop"
    label: str = ""
    split: str = ""


def parse_actions(texts: Sequence[str]) -> dict[str, str]:
    """Parse ``--on`` options such as ``leak=keep`` into the action for every kind; others get their default.

    Raises:
        ConfigError: a kind is unknown, or does not allow the action.
    """
    actions = {name: kind.actions[0] for name, kind in KINDS.items()}
    for text in texts:
        name, _, action = text.partition("=")
        if name not in KINDS:
            raise ConfigError(f"--on {text}: unknown defect{did_you_mean(name, KINDS)}; choose from {', '.join(KINDS)}")
        if action not in KINDS[name].actions:
            raise ConfigError(f"--on {text}: for {name} choose from {', '.join(KINDS[name].actions)}")
        actions[name] = action
    return actions


def describe_kinds() -> str:
    """Format the kinds, with their actions, for ``--help``."""
    return "\n".join(f"  {name:14} {kind.meaning}: {', '.join(kind.actions)}" for name, kind in KINDS.items())

"""What can be wrong with a photo, what is done about it, and what else may be asked for. One table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from classifier.errors import ConfigError, did_you_mean


class Kind(NamedTuple):
    """A kind of defect. The first of ``actions`` is the default."""

    meaning: str
    actions: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "corrupt": Kind("an image that cannot be decoded", ("drop",)),
    "truncated": Kind("an image whose end is missing", ("drop", "repair")),
    "not-image": Kind("no image, whatever its name says", ("drop",)),
    "extension": Kind("named as another format than it is", ("repair", "keep", "drop")),
    "tiny": Kind("a side shorter than --min-side", ("drop", "keep")),
    "conflict": Kind("the same bytes in two classes", ("drop", "keep")),
    "leak": Kind("the same bytes in two splits", ("drop", "keep")),
    "repeat": Kind("the same bytes again in the same class and split", ("keep", "drop")),
    "misplaced": Kind("a photo that lies in no class folder", ("drop",)),
    "missing": Kind("named by the source, but not there or not readable", ("drop",)),
    "unsafe": Kind("an archive's entry that is not a plain file inside it", ("drop",)),
}

DONE = {"drop": "left out", "keep": "kept", "repair": "repaired"}

Actions = Mapping[str, str]


class Defect(NamedTuple):
    """One thing that is wrong with one photo, and what was done: ``drop``, ``keep`` or ``repair``."""

    kind: str
    place: str
    reason: str
    action: str = "drop"
    label: str = ""
    split: str = ""


def parse_actions(texts: Sequence[str]) -> dict[str, str]:
    """``["leak=keep"]`` → the action of every kind, the default where nothing is said.

    Raises:
        ConfigError: an unknown kind, or an action that a kind does not have.
    """
    actions = {name: kind.actions[0] for name, kind in KINDS.items()}
    for text in texts:
        name, _, action = text.partition("=")
        if name not in KINDS:
            raise ConfigError(f"--on {text}: unknown defect{did_you_mean(name, KINDS)}; known are {', '.join(KINDS)}")
        if action not in KINDS[name].actions:
            raise ConfigError(f"--on {text}: for {name} choose among {', '.join(KINDS[name].actions)}")
        actions[name] = action
    return actions


def describe_kinds() -> str:
    """The table, for ``--help``."""
    return "\n".join(f"  {name:10} {kind.meaning}: {', '.join(kind.actions)}" for name, kind in KINDS.items())

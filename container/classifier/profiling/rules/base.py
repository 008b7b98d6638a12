"""Base of the profiler's rules."""

from __future__ import annotations

from typing import Protocol

from classifier.contract import findings
from classifier.contract.findings import Finding
from classifier.profiling.profile import Profile

SMALLER_PHOTOS = "Shrink the photos once (prepare_data.py --longer-side)"  # advice of several rules


class Rule(findings.Rule, Protocol):
    """A rule that is evaluated once, on a whole profile."""

    def __call__(self, profile: Profile, /) -> Finding:
        """Return the rule's finding on a profile."""
        ...


class NamedRule:
    """Base of the rules, whose class names are AWS's names."""

    @property
    def name(self) -> str:
        """AWS's name of the rule."""
        return type(self).__name__

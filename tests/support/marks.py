"""Marks for tests that the default suite has no time for."""

import pytest

# Part of CI all the same; for one case: `pytest.param(…, marks=GATE)`.
GATE = (pytest.mark.slow, pytest.mark.gate)

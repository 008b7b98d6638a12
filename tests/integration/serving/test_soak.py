"""A short `make soak-serve`: many requests leak neither memory nor threads nor descriptors."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.serve_soak import soak
from support.servers import ServerProcess


@pytest.mark.slow
@pytest.mark.gate
def test_many_requests_leak_nothing(server: ServerProcess) -> None:
    with ThreadPoolExecutor(2) as callers:
        assert soak(server, 400, callers).judge() == []

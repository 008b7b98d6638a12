"""A short `make soak-serve`: many requests leak neither memory nor threads nor descriptors."""

from benchmarks.serve_soak import soak
from support.servers import ServerProcess


def test_many_requests_leak_nothing(server: ServerProcess) -> None:
    assert soak(server, 1_000).judge() == []

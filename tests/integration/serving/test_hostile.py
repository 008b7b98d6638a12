"""A short `make fuzz-serve`: no request breaks the server."""

from benchmarks.serve_fuzz import fuzz
from support.servers import ServerProcess


def test_hostile_requests_are_rejected_and_leak_nothing(small_server: ServerProcess) -> None:
    assert fuzz(small_server, 200).problems == []

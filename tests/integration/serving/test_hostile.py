"""`make fuzz-serve` in short: nothing that a caller can send breaks the server."""

from benchmarks.serve_fuzz import fuzz
from support.servers import Server


def test_hostile_requests_are_refused_and_leave_nothing_behind(server: Server) -> None:
    assert fuzz(server, 200).problems == []

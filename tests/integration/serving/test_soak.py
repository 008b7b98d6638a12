"""`make soak-serve` in short: the server is after many requests as it was before."""

from benchmarks.serve_soak import soak
from support.servers import Server


def test_many_requests_leave_nothing_behind(server: Server) -> None:
    assert soak(server, 1_000).judge() == []

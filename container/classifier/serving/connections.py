"""All connections of a worker, with limits that keep slow or hostile clients from locking out the others.

Limits on the number of connections, on the time for headers, on the rate of uploads and on the memory for bodies.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from classifier.serving.asgi import Adapter, Admission
from classifier.serving.connection import GRACE_S, PAUSE_S, Connection
from classifier.serving.errors import BusyError, TooSlowError
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry

# Of the memory for bodies, the share that is kept for small ones.
SMALL_BODIES_SHARE = 0.125
# Time for large heads in each iteration of the event loop.
SLICE_S = 0.005


class Connections:
    """All connections of a worker, and the limits that they share.

    Args:
        settings: the limits.
        adapter: writes the responses to refused requests.
        admission: whether the server is stopping.
        telemetry: records evictions and timeouts.
        max_connections: above it, connections are closed.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: ServerSettings,
        adapter: Adapter,
        admission: Admission,
        telemetry: Telemetry,
        max_connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.adapter = adapter
        self.admission = admission
        self.clock = clock
        self.num_buffered = 0  # bytes of all bodies and incomplete heads in memory
        self.telemetry = telemetry
        self._max_connections = max_connections
        self._connections: dict[Connection, None] = {}  # in the order of their last activity
        self._deferred: deque[Connection] = deque()
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def add(self, connection: Connection) -> None:
        """Register a connection; above the limit, one that has sent nothing for longest is closed."""
        self._connections[connection] = None
        if len(self._connections) > self._max_connections:
            self._evict(newest=connection)

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._connections.pop(connection, None)

    def mark_active(self, connection: Connection) -> None:
        """Note that something was received on a connection."""
        if connection in self._connections:
            self._connections[connection] = self._connections.pop(connection)

    def defer(self, connection: Connection) -> None:
        """Let a connection receive later, in turn with others."""
        if not self._deferred:
            asyncio.get_running_loop().call_soon(self._receive_deferred)
        self._deferred.append(connection)

    def _receive_deferred(self) -> None:
        start = self.clock()
        while self._deferred and self.clock() - start < SLICE_S:
            self._deferred.popleft().receive_deferred()
        if self._deferred:
            asyncio.get_running_loop().call_soon(self._receive_deferred)

    def add_buffered(self, connection: Connection, num_bytes: int) -> None:
        """Count received bytes of a body; if room is short, the slowest large uploads are ended."""
        self.num_buffered += num_bytes
        if self.num_buffered > self._large_limit:
            self._make_room(connection)

    def sweep(self) -> None:
        """End whatever has taken too long; to be called about twice a second."""
        now = self.clock()
        elapsed, self._swept = now - self._swept, now
        for connection in self:
            connection.update_rate(elapsed)
            self._end_if_late(connection, now)

    def _end_if_late(self, connection: Connection, now: float) -> None:
        settings, silent_s = self.settings, now - connection.since
        age_s = now - (connection.began or now)
        if connection.is_idle:
            if silent_s > max(settings.keep_alive_s, GRACE_S):
                connection.close()
        elif connection.is_receiving_head:
            if age_s > settings.header_timeout_s:
                self._end_slow(connection, f"the headers did not arrive within {settings.header_timeout_s:g} s")
        elif connection.is_receiving:
            if silent_s > settings.receive_timeout_s:
                self._end_slow(connection, f"nothing of the body arrived for {settings.receive_timeout_s:g} s")
            elif age_s > GRACE_S and connection.rate < settings.min_upload_kb_s * 1024:
                self._end_slow(connection, f"the body arrives at less than {settings.min_upload_kb_s:g} KiB/s")
        elif connection.is_writing and silent_s > settings.receive_timeout_s:
            connection.abort()

    def _end_slow(self, connection: Connection, message: str) -> None:
        if connection.error is None:
            self.telemetry.record_receive_timeout()
            connection.end_upload(TooSlowError(message))

    def _evict(self, newest: Connection) -> None:
        # Of each kind the one that has been silent for longest, and never an upload that makes progress.
        now = self.clock()
        others = [one for one in self._connections if one is not newest]
        closed = next((one for one in others if one.is_idle), None)
        closed = closed or next((one for one in others if one.is_receiving_head), None)
        closed = closed or next((one for one in others if one.is_receiving and now - one.since > PAUSE_S), newest)
        closed.abort()
        # At once: the transport reports the end later, and until then the same one would be chosen again.
        self.remove(closed)
        self.telemetry.record_eviction()

    @property
    def _large_limit(self) -> int:
        limit = self.settings.max_buffered
        return max(round(limit * (1 - SMALL_BODIES_SHARE)), self.settings.max_body)

    def _make_room(self, newest: Connection) -> None:
        held = [one for one in self._connections if one.num_body_bytes and one.error is None]
        large = [one for one in held if one.is_large]
        excess = sum(one.num_body_bytes for one in held) - self.settings.max_buffered
        if newest.is_large:
            excess = max(excess, sum(one.num_body_bytes for one in large) - self._large_limit)
        now = self.clock()
        slowest_first = sorted((one for one in large if one.is_receiving), key=lambda one: one.speed(now))
        for connection in [*slowest_first, newest]:
            if excess <= 0:
                return
            if connection.error is None:
                excess -= connection.num_body_bytes
                connection.end_upload(BusyError("too many request bodies are in transit"))

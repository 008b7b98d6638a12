"""All connections of a worker, with limits that keep slow or hostile clients from locking out the others.

Limits on the number of connections, on the time for headers, on the rate of uploads and on the memory for bodies.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator

from classifier.host import trim_malloc
from classifier.serving.asgi import Adapter, Admission
from classifier.serving.connection import GRACE_S, PAUSE_S, Connection
from classifier.serving.errors import BusyError, TooSlowError
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry

# Of the memory for bodies, the share that is kept for small ones.
SMALL_BODIES_SHARE = 0.125
# Of each iteration of the event loop, the time in which requests other than pings begin to be parsed: hundreds that
# arrive at once are answered over many iterations, and a ping is answered in the next one.
SLICE_S = 0.001
# Between two returns of unused memory, each of which takes up to 30 ms after a burst of requests.
TRIM_EVERY_S = 10.0


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
        self._turn_began: float | None = None  # of an iteration of the event loop in which requests are parsed
        self._swept = self._trimmed = clock()

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

    def has_time(self) -> bool:
        """Whether this iteration of the event loop has time for a request, and none waits for its turn."""
        if self._turn_began is None:
            self._turn_began = self.clock()
            asyncio.get_running_loop().call_soon(self._begin_turn)
        return not self._deferred and self.clock() - self._turn_began < SLICE_S

    def defer(self, connection: Connection) -> None:
        """Let a connection receive in a later iteration of the event loop, in turn with others."""
        self._deferred.append(connection)

    def _begin_turn(self) -> None:
        if not self._deferred:
            self._turn_began = None
            return
        self._turn_began = self.clock()
        asyncio.get_running_loop().call_soon(self._begin_turn)
        while self._deferred and self.clock() - self._turn_began < SLICE_S:
            self._deferred.popleft().receive_deferred()

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
        if now - self._trimmed > TRIM_EVERY_S and not self.admission.num_in_flight:
            self._trimmed = now
            _return_memory()

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
        others = [one for one in self._connections if one is not newest and not one.is_waiting]
        # Of many that are accepted at once, an upload has not been read yet.
        closed = next((one for one in others if one.is_idle and not one.has_unread), None)
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


def _return_memory() -> None:
    # Closed connections are garbage in cycles, of which Python collects few at a time.
    gc.collect()
    trim_malloc()

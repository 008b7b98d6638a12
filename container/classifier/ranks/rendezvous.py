"""What the programs of a job's hosts know of each other.

The first host's program keeps a state for each host. All programs, its own among them, send theirs four times a second
and get those of all hosts in return, as lines of JSON. So each learns within a second what happened on another host,
and that a host has vanished.

This is not torch's TCPStore: importing torch costs each host's program 4 CPU seconds and 0.5 GB beside those of its
ranks, and a call to a store whose host has vanished returns after a quarter of an hour.
"""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BufferedRWPair
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

_INTERVAL_S = 0.25
LOOPBACK = "127.0.0.1"


class Failure(BaseModel):
    """Why a rank or a host's program has ended.

    Attributes:
        where: such as ``rank 3 on algo-2``.
        code: exit code of the programs on all hosts.
        reason: the text of ``output/failure``.
        at: the host's time, seconds since the epoch.
        is_consequence: whether it looks like the end of a rank that has lost another one.
    """

    model_config = ConfigDict(frozen=True)

    where: str
    code: int
    reason: str
    at: float
    is_consequence: bool = False


class HostState(BaseModel):
    """What a host's program says of itself.

    Attributes:
        num_ranks: on this host.
        port: on the first host, of the ranks' store.
        stop: name of the signal that it got.
        failures: of its ranks or its own.
        verdict: the failure that the hosts report.
        is_done: all its ranks have ended, none by a failure.
        has_left: it has read how the job ends, and exchanges nothing more.
        is_lost: its connection has ended.
        beat: counts its messages.
    """

    model_config = ConfigDict(frozen=True)

    num_ranks: int
    port: int = 0
    stop: str = ""
    failures: tuple[Failure, ...] = ()
    verdict: Failure | None = None
    is_done: bool = False
    has_left: bool = False
    is_lost: bool = False
    beat: int = 0


class Rendezvous:
    """A context in which this host exchanges its state with the other hosts.

    Attributes:
        hosts: all, sorted.
        states: of the hosts that have joined, replaced by each exchange.
        obstacle: why the first host can't be reached yet.

    Args:
        hosts: sorted; the first keeps the states.
        current: this host.
        address: name and port of the first host's program; port 0 is any free one, for a single host.
        own: the first state.
        heartbeat_s: a host from which nothing was heard for so long has vanished.
    """

    def __init__(
        self, hosts: Sequence[str], current: str, address: tuple[str, int], own: HostState, heartbeat_s: float
    ) -> None:
        self.states: Mapping[str, HostState] = {}
        self.obstacle = ""
        self.hosts, self._current = list(hosts), current
        self._address, self._heartbeat_s = address, heartbeat_s
        self._own = own
        self._changed_s: dict[str, float] = {}
        self._answered_s: float | None = None
        self._is_cut = False
        self._closing = threading.Event()
        self._board: _Board | None = None
        if self.is_first:
            self._board = _Board((LOOPBACK if len(hosts) == 1 else "", address[1]))
            self._address = (LOOPBACK, self._board.server_address[1])

    @property
    def is_first(self) -> bool:
        """Whether this host keeps the states."""
        return self._current == self.hosts[0]

    def __enter__(self) -> "Rendezvous":
        if self._board:
            threading.Thread(target=self._board.serve_forever, args=(0.05,), daemon=True).start()
        threading.Thread(target=self._exchange, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._board:
            self._board.shutdown()
            self._board.server_close()

    def publish(self, **changes: Any) -> None:
        """Change this host's state, which the others see after the next exchanges."""
        self._own = self._own.model_copy(update=changes)

    def lost(self) -> list[str]:
        """Return the hosts that have joined and from which nothing is heard any more."""
        now = time.monotonic()
        if self._answered_s is None:
            return []
        if self._is_cut or now - self._answered_s > self._heartbeat_s:
            return [self.hosts[0]]
        return [
            host
            for host, state in self.states.items()
            if not state.has_left and (state.is_lost or now - self._changed_s[host] > self._heartbeat_s)
        ]

    def leave(self, verdict: Failure | None, timeout_s: float) -> None:
        """Pass on how the job ends. The first host waits until all others know; a failure awaits those yet to join."""
        self.publish(verdict=verdict, has_left=True)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            awaited = set(self.hosts if verdict else self.states)
            awaited &= set(self.hosts if self.is_first else [self._current])
            lost = set(self.lost())
            if self.hosts[0] in lost or not {host for host in awaited - lost if not self._has_left(host)}:
                return
            time.sleep(_INTERVAL_S / 5)

    def _has_left(self, host: str) -> bool:
        return host in self.states and self.states[host].has_left

    def _exchange(self) -> None:
        while not self._closing.is_set():
            try:
                with (
                    socket.create_connection(self._address, timeout=self._heartbeat_s) as connection,
                    connection.makefile("rwb") as stream,
                ):
                    self._talk(stream)
            except OSError as error:
                if self._answered_s is not None:
                    # The ranks' connections have been cut as well.
                    self._is_cut = True
                    return
                self.obstacle = f"{self._address[0]}: {error.strerror or error}"
                self._closing.wait(_INTERVAL_S)

    def _talk(self, stream: BufferedRWPair) -> None:
        while not self._closing.is_set():
            self._own = self._own.model_copy(update={"beat": self._own.beat + 1})
            stream.write(json.dumps([self._current, self._own.model_dump()]).encode() + b"\n")
            stream.flush()
            answer = stream.readline()
            if not answer.endswith(b"\n"):
                raise ConnectionResetError("the connection has ended")
            states = {host: HostState.model_validate(state) for host, state in json.loads(answer).items()}
            self._answered_s = now = time.monotonic()
            self._changed_s.update({host: now for host, state in states.items() if state != self.states.get(host)})
            self.states = states
            self._closing.wait(_INTERVAL_S)


class _Board(socketserver.ThreadingTCPServer):
    """The states of all hosts by name."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Connection)
        self.states: dict[str, dict[str, Any]] = {}


class _Connection(socketserver.StreamRequestHandler):
    """One host's connection to the board."""

    def handle(self) -> None:
        board, host = cast(_Board, self.server), ""
        with suppress(OSError, ValueError):
            for line in self.rfile:
                host, state = json.loads(line)
                board.states[host] = state
                self.wfile.write(json.dumps({**board.states}).encode() + b"\n")
        if host:
            board.states[host] = {**board.states[host], "is_lost": True}

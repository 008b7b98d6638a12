"""The supervisor of a host's ranks, which agrees with those of the other hosts how the job ends.

Not torch's launcher: its agent reports a failure on the host of the rank alone, while the other hosts wait for their
ranks' timeouts; it ends its ranks 30 s after a signal, whatever they are saving; and it does not see that a rank was
stopped or a host has vanished.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classifier.contract.config import Cluster
from classifier.errors import ConfigError, Stopped, describe_failure
from classifier.ranks.processes import TRAIN, Ranks, reserve_port
from classifier.ranks.rendezvous import LOOPBACK, Failure, HostState, Rendezvous
from classifier.training.console import StopCheck

_PORT = 29500
_POLL_S = 0.1
_LINE_S = 10.0  # between two lines about a host that is awaited
# From the first failure until the hosts agree which was first: a failure that looks like another's consequence waits
# for that one, and other hosts wait for the first host's word.
_SETTLE_S, _SETTLE_CONSEQUENCE_S, _SETTLE_OTHERS_S = 1.0, 3.0, 2.0
_STOP_S = 45.0  # after a stop, for a rank that waits in vain for another one
_LEAVE_S = 8.0


@dataclass(frozen=True)
class Timing:
    """Time limits in seconds.

    Attributes:
        heartbeat_s: after which a host that is not heard, or a rank that was stopped, ends the job.
        join_s: for all hosts to start.
    """

    heartbeat_s: float = 60.0
    join_s: float = 900.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Timing":
        """Return the limits in ``TRAIN_HEARTBEAT_S`` and ``TRAIN_JOIN_S``, or the defaults."""
        given = {name: environment.get(f"TRAIN_{name.upper()}") for name in ("heartbeat_s", "join_s")}
        return cls(**{name: float(value) for name, value in given.items() if value})


@dataclass
class Supervisor:
    """Starts the ranks of this host when all hosts are there, and watches them to their end.

    Attributes:
        cluster: the job's hosts.
        num_ranks: on this host; the same on all.
        stop: checked all the time; a signal is forwarded to the ranks of all hosts.
        log: prints a line.
    """

    cluster: Cluster
    num_ranks: int
    stop: StopCheck
    log: Callable[[str], object]
    program: Sequence[str] = TRAIN
    timing: Timing = field(default_factory=Timing.from_environment)
    _failures: list[Failure] = field(default_factory=list)
    _failed_s: float | None = None
    _stopped_s: float | None = None

    def run(self, check: Callable[[], object]) -> Failure | None:
        """Run the job's ranks on this host to their end.

        Args:
            check: of this host, called first; what it raises ends the job on all hosts.

        Returns:
            The first failure of any host, or None if there was none.

        Raises:
            Stopped: a signal came before the ranks were started.
        """
        hosts, current = sorted(self.cluster.hosts), self.cluster.current_host
        with tempfile.TemporaryDirectory(prefix="ranks-") as folder, reserve_port() as port:
            own, address = HostState(num_ranks=self.num_ranks, port=port), _address(hosts)
            with Rendezvous(hosts, current, address, own, self.timing.heartbeat_s) as meeting:
                verdict: Failure | None = None
                try:
                    check()
                    store = (address[0], self._await_hosts(meeting))
                    verdict = self._watch(meeting, store, Path(folder))
                except Stopped:
                    raise
                except Exception as error:
                    code, reason = describe_failure(error)
                    verdict = Failure(where=current, code=code, reason=reason, at=time.time())
                finally:
                    meeting.leave(verdict, _LEAVE_S)
                return verdict

    def _await_hosts(self, meeting: Rendezvous) -> int:
        """Wait until all hosts have joined; return the port of the ranks' store, on the first host.

        Raises:
            ConfigError: a host does not join, or the hosts differ in their number of ranks.
            Stopped: a host got a signal.
        """
        started_s, next_line_s = time.monotonic(), _LINE_S
        while missing := [host for host in meeting.hosts if host not in meeting.states]:
            waited_s = time.monotonic() - started_s
            obstacle = f" ({meeting.obstacle})" if not meeting.states else ""
            if waited_s > self.timing.join_s:
                raise ConfigError(
                    f"after {waited_s:.0f} s, {', '.join(missing)} had not joined the other hosts{obstacle}: in a VPC, "
                    "the security group has to allow traffic between its members"
                )
            if waited_s > next_line_s:
                self.log(f"hosts       waiting for {', '.join(missing)}, {waited_s:.0f} s so far{obstacle}")
                next_line_s += _LINE_S
            if self._decide(meeting):
                break
            if name := self._stop_name(meeting):
                raise Stopped(name)
            time.sleep(_POLL_S)
        counts = {host: state.num_ranks for host, state in sorted(meeting.states.items())}
        if len(set(counts.values())) > 1:
            described = ", ".join(f"{host} {count}" for host, count in counts.items())
            raise ConfigError(f"the hosts have different numbers of GPUs ({described}): set ranks_per_host")
        return meeting.states[meeting.hosts[0]].port

    def _watch(self, meeting: Rendezvous, store: tuple[str, int], folder: Path) -> Failure | None:
        """Start the ranks unless another host has failed; return the failure that ends the job, if one does."""
        if verdict := self._decide(meeting):
            return verdict
        ranks = Ranks.start(self.program, self.cluster, self.num_ranks, store, folder, self.timing.heartbeat_s)
        try:
            while not all(state.is_done for state in meeting.states.values()):
                self._failures += ranks.poll()
                self._stop_ranks(meeting, ranks)
                if verdict := self._decide(meeting):
                    return verdict
                is_done = ranks.have_ended and self._failed_s is None
                meeting.publish(failures=tuple(self._failures), is_done=is_done)
                time.sleep(_POLL_S)
            return None
        finally:
            ranks.kill()

    def _stop_name(self, meeting: Rendezvous) -> str | None:
        """Return the name of the signal that any host got first, and pass this host's on."""
        if self.stop.received:
            meeting.publish(stop=self.stop.received)
        return self.stop.received or next((one.stop for one in meeting.states.values() if one.stop), None)

    def _stop_ranks(self, meeting: Rendezvous, ranks: Ranks) -> None:
        """Forward the first signal that any host got to the ranks, once."""
        name = self._stop_name(meeting)
        if name and self._stopped_s is None:
            self._stopped_s = time.monotonic()
            ranks.signal(signal.Signals[name])
        if self._stopped_s and time.monotonic() - self._stopped_s > _STOP_S:
            ranks.abandon()

    def _decide(self, meeting: Rendezvous) -> Failure | None:
        """Return the failure that ends the job: the first host's word, or this one's if that is missing."""
        states = meeting.states.values()
        if verdict := next((state.verdict for state in states if state.verdict), None):
            return verdict
        found = [*self._failures, *(failure for state in states for failure in state.failures)]
        if lost := next(iter(meeting.lost()), None):
            reason = f"{lost} has vanished: its program was killed, or nothing was heard of it for "
            found.append(Failure(where=lost, code=2, reason=f"{reason}{self.timing.heartbeat_s:g} s", at=time.time()))
        if self._stopped_s is not None:
            # A rank that has stopped is lost to those that have not yet.
            found = [failure for failure in found if not failure.is_consequence]
        if not found:
            self._failed_s = None
            return None
        self._failed_s = self._failed_s or time.monotonic()
        first = min(found, key=lambda failure: (failure.is_consequence, failure.at))
        settle_s = _SETTLE_CONSEQUENCE_S if first.is_consequence else _SETTLE_S
        settle_s += 0 if meeting.is_first else _SETTLE_OTHERS_S
        return first if time.monotonic() - self._failed_s > settle_s else None


def _address(hosts: Sequence[str]) -> tuple[str, int]:
    """Return name and port of the first host's program; any free port is as good for a single host."""
    if "MASTER_ADDR" not in os.environ and len(hosts) == 1:
        return LOOPBACK, 0
    return os.environ.get("MASTER_ADDR", hosts[0]), int(os.environ.get("MASTER_PORT", _PORT))

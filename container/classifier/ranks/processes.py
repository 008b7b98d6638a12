"""The processes of a host's ranks: the program ``train`` with torchrun's environment variables."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from classifier.contract.config import Cluster
from classifier.errors import ConfigError
from classifier.host import num_gpus
from classifier.ranks.rendezvous import Failure
from classifier.signals import STOP_SIGNALS, SUPERVISOR

FAILURE_FILE = "CLASSIFIER_FAILURE_FILE"  # variable of a rank: where it writes its reason
TRAIN = (sys.executable, "-m", "classifier.train")
_LOST_PEER = re.compile(r"gloo|NCCL|\bDist\w*Error|Socket|[Cc]onnection (closed|reset)|Broken pipe|[Tt]imed out")
_NETWORK_INTERFACES = Path("/sys/class/net")


def count_ranks(ranks_per_host: int | str) -> int:
    """Return the number of ranks on this host: as many as GPUs for ``auto``, or one without a GPU.

    Raises:
        ConfigError: more ranks than GPUs are asked for.
    """
    found = num_gpus()
    if ranks_per_host == "auto":
        return max(1, found)
    if 0 < found < int(ranks_per_host):
        raise ConfigError(
            f"ranks_per_host={ranks_per_host} is more than the host's GPUs, {found}: each has one rank, so leave it out"
        )
    return int(ranks_per_host)


def rank_number(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the rank that this process is, or None if it is a host's program."""
    return int(environment["RANK"]) if "RANK" in environment else None


@dataclass
class _Rank:
    number: int
    where: str
    failure_file: Path
    has_ended: bool = False
    is_abandoned: bool = False
    stopped_s: float | None = None


@dataclass(frozen=True)
class Ranks:
    """The ranks that were started on this host.

    Attributes:
        processes: by process ID.
        heartbeat_s: a rank that a signal has stopped for so long has failed.
    """

    processes: Mapping[int, _Rank]
    heartbeat_s: float

    @classmethod
    def start(
        cls,
        program: Sequence[str],
        cluster: Cluster,
        num_ranks: int,
        store: tuple[str, int],
        folder: Path,
        heartbeat_s: float,
    ) -> "Ranks":
        """Start the ranks.

        Args:
            num_ranks: on each host.
            store: where rank 0 listens.
            folder: an empty one, for their reasons.
        """
        shared = _shared_environment(cluster, num_ranks, store)
        processes: dict[int, _Rank] = {}
        for local in range(num_ranks):
            number = cluster.rank * num_ranks + local
            rank = _Rank(number, f"rank {number} on {cluster.current_host}", folder / str(local))
            own = {"RANK": str(number), "LOCAL_RANK": str(local), FAILURE_FILE: str(rank.failure_file)}
            # In its own session, so that it gets a terminal's Ctrl-C once, from its supervisor; with the stop signals
            # blocked until it has handlers.
            pid = os.posix_spawn(program[0], list(program), {**shared, **own}, setsid=True, setsigmask=STOP_SIGNALS)
            processes[pid] = rank
        return cls(processes, heartbeat_s)

    @property
    def have_ended(self) -> bool:
        return all(rank.has_ended for rank in self.processes.values())

    def poll(self) -> list[Failure]:
        """Return the failures since the last call. As process 1, reap processes that ranks have left, too."""
        failures: list[Failure | None] = []
        with suppress(ChildProcessError):
            while (change := os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED))[0]:
                if rank := self.processes.get(change[0]):
                    failures.append(_note(rank, change[1]))
        for rank in self.processes.values():
            if rank.stopped_s is not None and time.monotonic() - rank.stopped_s > self.heartbeat_s:
                rank.stopped_s = None
                lasted = f"has not gone on for {self.heartbeat_s:g} s"
                failures.append(_failure(rank, 2, f"{rank.where} was stopped by a signal, and {lasted}"))
        return [failure for failure in failures if failure]

    def signal(self, number: signal.Signals, select: Callable[[_Rank], bool] = lambda _: True) -> None:
        """Send a signal to the ranks that run."""
        for pid, rank in self.processes.items():
            if not rank.has_ended and select(rank):
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)

    def abandon(self) -> None:
        """Kill the ranks that still run, but not rank 0, which may be saving. That is no failure of theirs."""
        for rank in self.processes.values():
            rank.is_abandoned = rank.number > 0
        self.signal(signal.SIGKILL, lambda rank: rank.is_abandoned)

    def kill(self) -> None:
        """Kill the ranks that still run, and wait for their end."""
        self.signal(signal.SIGKILL)
        while not self.have_ended:
            self.poll()
            time.sleep(0.01)


def _shared_environment(cluster: Cluster, num_ranks: int, store: tuple[str, int]) -> dict[str, str]:
    environment = {
        **os.environ,
        **_interface(cluster.network_interface_name, len(cluster.hosts)),
        "WORLD_SIZE": str(len(cluster.hosts) * num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": store[0],
        "MASTER_PORT": str(store[1]),
        SUPERVISOR: str(os.getpid()),
    }
    # With it, a printed line would be two writes, between which another rank's can come.
    environment.pop("PYTHONUNBUFFERED", None)
    return environment


def _interface(name: str | None, num_hosts: int) -> dict[str, str]:
    """Return the variables that name the network interface between the ranks, unless they are set or there is none."""
    name = name if num_hosts > 1 else "lo"
    if not name or not (_NETWORK_INTERFACES / name).exists():
        return {}
    return {key: os.environ.get(key, name) for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}


@contextmanager
def reserve_port() -> Iterator[int]:
    """Keep a port for rank 0's store: torch may listen there, and nothing else gets it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("", 0))
        yield reserved.getsockname()[1]


def _note(rank: _Rank, status: int) -> Failure | None:
    """Note a change of a rank's process; return the failure if it was one."""
    if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
        rank.stopped_s = time.monotonic() if os.WIFSTOPPED(status) else None
        return None
    rank.has_ended, rank.stopped_s = True, None
    code = os.waitstatus_to_exitcode(status)
    if code == 0 or rank.is_abandoned:
        return None
    if code < 0:
        # NCCL aborts a process that has lost another one.
        return _failure(rank, 2, _describe_kill(rank.where, -code), code == -signal.SIGABRT)
    reason = _read(rank.failure_file) or f"{rank.where} ended with exit code {code}: see its log"
    return _failure(rank, code, reason, code > 1 and _LOST_PEER.search(reason.partition("\n")[0]) is not None)


def _failure(rank: _Rank, code: int, reason: str, is_consequence: bool = False) -> Failure:
    return Failure(where=rank.where, code=code, reason=reason, at=time.time(), is_consequence=is_consequence)


def _describe_kill(where: str, number: int) -> str:
    text = f"{where} was killed by signal {number} ({signal.Signals(number).name})"
    if number != signal.SIGKILL:
        return text
    return (
        f"{text}, as the kernel does when a host's memory is used up: lower batch_size or num_workers, or choose a "
        "larger instance type"
    )


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").rstrip("\n")
    return ""

"""Hosts of one job as processes on this machine: each with a folder like /opt/ml, all on the loopback interface."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from launch.local.opt_ml import lay_out, resource_config

PATIENCE_S = 120.0

# A host's program whose ranks run a line of Python. It prints what `train` would write into output/failure.
HOST = """
import sys
from classifier.contract.config import Cluster
from classifier.errors import DataError, Stopped
from classifier.ranks.supervisor import Supervisor
from classifier.training.console import StopSignal

name, hosts, num_ranks, code, check = sys.argv[1:]
def raise_check():
    if check:
        raise DataError(check)
cluster = Cluster(current_host=name, hosts=hosts.split(","))
stop = StopSignal()
stop.listen()
log = lambda line: print(line, flush=True)
log("listening")
program = (sys.executable, "-c", code)
try:
    failure = Supervisor(cluster, int(num_ranks), stop, log, program).run(raise_check)
except Stopped as stopped:
    print("stopped", stopped)
    sys.exit(0)
print("failure:", failure.reason if failure else None)
sys.exit(failure.code if failure else 0)
"""

# At the start of a rank's line: what the program `train` does first.
RANK = """
import os, signal, sys, time
from pathlib import Path
from classifier.signals import end_with_supervisor
end_with_supervisor()
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
def fail(code, reason):
    Path(os.environ["CLASSIFIER_FAILURE_FILE"]).write_text(reason)
    sys.exit(code)
def say(*words):
    print(*words, flush=True)
received = []
def handle():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(signal.Signals(number).name))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
def wait_for_stop():
    while not received:
        time.sleep(0.02)
handle()
say("rank", rank, "of", size, "is", os.getpid())
"""


class Host:
    """A host's program; its output is collected in a file."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def lines(self, prefix: str) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith(prefix)]

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


class Cluster:
    """The hosts ``algo-1``, ``algo-2`` and so on of one job; call :meth:`close` at the end."""

    def __init__(self, folder: Path, num_hosts: int) -> None:
        self.folder = folder
        self.names = [f"algo-{number}" for number in range(1, num_hosts + 1)]
        self.hosts: dict[str, Host] = {}
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }

    def start_code(
        self,
        name: str,
        code: str,
        *,
        num_ranks: int = 1,
        check: str = "",
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> Host:
        """Start a host whose ranks run a line of Python, without torch.

        Args:
            check: the message of what the host's own check raises, if any.
            wrapper: a command that runs the host's program.
        """
        command = [*wrapper, sys.executable, "-c", HOST, name, ",".join(self.names), str(num_ranks), RANK + code, check]
        return self._start(name, command, environment)

    def lay_out(self, channels: Mapping[str, Path], hyperparameters: Mapping[str, str]) -> None:
        """Write each host's ``/opt/ml``; checkpoints are in one folder, as on the platform."""
        shared = self.folder / "checkpoints"
        shared.mkdir(exist_ok=True)
        for name in self.names:
            config = {
                "resourceconfig": resource_config(name, self.names, "lo"),
                "checkpointconfig": {"LocalPath": str(shared)},
            }
            lay_out(self.base(name), channels, hyperparameters, config=config)

    def start_train(self, name: str, **environment: str) -> Host:
        """Start the program ``train`` on a host."""
        own = {"SAGEMAKER_BASE_DIR": str(self.base(name))}
        return self._start(name, [str(Path(sys.executable).with_name("train"))], {**own, **environment})

    def _start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Host:
        host = Host(name, command, {**self.environment, **environment}, self.folder / f"{name}.log")
        self.hosts[name] = host
        return host

    def base(self, name: str) -> Path:
        return self.folder / name

    def failure(self, name: str) -> str | None:
        path = self.base(name) / "output" / "failure"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def wait(self) -> dict[str, int]:
        """Wait until all hosts have ended, and return their exit codes."""
        return {name: host.wait() for name, host in self.hosts.items()}

    def rank_pid(self, host: str, rank: int) -> int:
        """Return the process ID that a rank of :meth:`start_code` has printed."""
        prefix = f"rank {rank} of "
        self.wait_until(lambda: bool(self.hosts[host].lines(prefix)))
        return int(self.hosts[host].lines(prefix)[0].split()[-1])

    def wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, {name: host.log for name, host in self.hosts.items()}
            time.sleep(0.02)

    def close(self) -> None:
        """Kill the hosts that still run, and with them their ranks."""
        for host in self.hosts.values():
            with suppress(ProcessLookupError):
                os.kill(host.process.pid, signal.SIGKILL)
            host.process.wait()


def descendants(pid: int) -> list[int]:
    """Return the process IDs of a process's children, theirs included."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    children = [int(one) for one in text.split()]
    return children + [other for child in children for other in descendants(child)]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def read_config(base: Path, name: str) -> dict[str, object]:
    return json.loads((base / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))

"""Workers of pytest-xdist as forks of one process that has imported torch and the other large packages.

Each worker would import them anew, which takes about ten CPU seconds. Only third-party modules are imported beforehand,
and none that pytest rewrites.

The controller listens, and hands the socket to the process that imports: `python workers.py FD`. What execnet starts as
a worker's interpreter, `python workers.py connect NAME -c CODE`, sends that process its standard streams, and waits
until the worker that was forked for it has ended.
"""

import os
import sys

if __name__ == "__main__":
    # This folder has modules with the names of packages.
    del sys.path[0]

import gc
import importlib
import random
import select
import signal
import socket
import subprocess
import types
from collections.abc import Sequence
from contextlib import suppress

# What most workers need, except packages with a plugin of pytest, which are imported after it.
PACKAGES = (
    "boto3.session",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "optuna",
    "pandas",
    "plotly",
    "pydantic_settings",
    "safetensors.torch",
    "torch._dynamo",
    "torchvision.transforms.v2",
)
PROGRAM = os.path.abspath(__file__)  # noqa: PTH100 - a worker's client starts without pathlib


class WorkerSource:
    """The process that workers are forked from; it ends with the process that holds this."""

    def __init__(self, num_threads: int) -> None:
        # An abstract address, which leaves no file.
        self._name = f"tests-workers-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{self._name}")
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, PROGRAM, str(listener.fileno())],
                pass_fds=(listener.fileno(),),
                stdin=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": str(num_threads)},
            )

    @property
    def spec(self) -> str:
        """What xdist's option ``--tx`` takes for a worker."""
        return f"popen//python={sys.executable} -SE {PROGRAM} connect {self._name}"

    def close(self) -> None:
        """End the process; workers that still run are not touched."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{name}")
        socket.send_fds(connection, [b"worker"], [0, 1, 2])
        # Ctrl-C is for the worker, which the terminal sends it to as well.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The worker never writes: it holds the connection until it ends.
        connection.recv(1)


def _serve(listener: socket.socket) -> None:
    _import_packages()
    gc.collect()
    gc.freeze()
    # The kernel reaps the workers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        connection, _ = listener.accept()
        _, streams, _, _ = socket.recv_fds(connection, 16, 3)
        if os.fork() == 0:
            listener.close()
            # Open as long as the worker lives.
            connection.detach()
            _become_worker(streams)
            return
        connection.close()
        for stream in streams:
            os.close(stream)


def _become_worker(streams: Sequence[int]) -> None:
    """Run execnet's program as a new interpreter would."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = ["-c"]
    exec(eval(sys.stdin.readline()), vars(main))


def _import_packages() -> None:
    for name in PACKAGES:
        importlib.import_module(name)


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        _connect(sys.argv[2])
    else:
        with suppress(KeyboardInterrupt):
            _serve(socket.socket(fileno=int(sys.argv[1])))

"""Commands of ``scripts/`` as processes that a fork server starts, so that each need not import boto3 again.

A command gets what a user's shell would give it: its own arguments, environment, folder, standard streams and exit
code. ``preloaded.py`` imports third-party modules beforehand; of the project's own only the contract.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SCRIPTS = TESTS.parent / "scripts"

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["support.preloaded"])


class Command:
    """A program that has been started. Like Popen, but standard error is only known once the program has ended."""

    def __init__(
        self, words: Sequence[str], folder: os.PathLike[str] | None, environment: Mapping[str, str] | None
    ) -> None:
        self.args = list(words)
        self._files = tempfile.TemporaryDirectory()
        self._errors = Path(self._files.name) / "stderr"
        reader, writer = _processes.Pipe(duplex=False)
        streams = (writer, str(self._errors))
        given = dict(os.environ if environment is None else environment)
        self._process: BaseProcess = _processes.Process(
            target=_run, args=(self.args, *streams, os.fspath(folder or Path.cwd()), given)
        )
        _start_server()
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    @property
    def pid(self) -> int:
        """The process ID."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for the signal that ended the program, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the program has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    @property
    def errors(self) -> str:
        """Standard error so far."""
        return self._errors.read_text(encoding="utf-8")

    def join(self) -> None:
        """Wait for the end."""
        self._process.join()

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; return what is left of standard output, and standard error."""
        out = self.stdout.read()
        self.join()
        return out, self.errors

    def close(self) -> None:
        """Kill the program if it still runs, and remove its streams."""
        self.kill()
        self._process.join()
        self.stdout.close()
        self._files.cleanup()


def start_script(
    script: str,
    arguments: Sequence[str],
    *,
    folder: os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Command:
    """Start ``scripts/SCRIPT.py`` without a terminal; the caller closes it."""
    return Command([str(SCRIPTS / f"{script}.py"), *arguments], folder, environment)


def run_script(
    script: str,
    arguments: Sequence[str],
    *,
    folder: os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``scripts/SCRIPT.py`` to its end, without a terminal."""
    command = start_script(script, arguments, folder=folder, environment=environment)
    try:
        out, errors = command.communicate()
        return subprocess.CompletedProcess(command.args, command.returncode or 0, out, errors)
    finally:
        command.close()


def _start_server() -> None:
    """Start the fork server, which finds ``support.preloaded`` by PYTHONPATH alone."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(TESTS)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _run(words: list[str], out: Connection, err: str, folder: str, environment: dict[str, str]) -> None:
    errors = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out.fileno(), 1)
    os.dup2(errors, 2)
    os.close(errors)
    out.close()
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (open to the end)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = words
    sys.path[:] = [str(SCRIPTS), *(path for path in sys.path if path not in ("", str(TESTS), str(SCRIPTS)))]
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        with suppress(BrokenPipeError):
            sys.stdout.flush()

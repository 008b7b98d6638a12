"""Commands of ``scripts/`` as processes that a fork server starts, so that each need not import boto3 again.

A command gets what a user's shell would give it: its own arguments, environment, folder, standard streams and exit
code. Only the third-party modules below are imported beforehand; the project's own are not.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IMPORTED = ["boto3", "botocore.loaders", "jinja2", "numpy", "optuna", "PIL.Image", "plotly", "pydantic", "tqdm"]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(IMPORTED)


def run_script(
    script: str,
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run ``scripts/SCRIPT.py`` to its end, without a terminal. Raises TimeoutExpired like ``subprocess.run``."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    with tempfile.TemporaryDirectory() as outputs:
        out, err = Path(outputs) / "out", Path(outputs) / "err"
        inside = (
            str(out),
            str(err),
            os.fspath(folder or Path.cwd()),
            dict(os.environ if environment is None else environment),
        )
        process = _processes.Process(target=_run, args=(command[1:], *inside))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout_s, out.read_bytes(), err.read_bytes())
        done = subprocess.CompletedProcess(
            command, process.exitcode or 0, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        )
        process.close()
        return done


def _run(command: list[str], out: str, err: str, folder: str, environment: dict[str, str]) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (open to the end)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    tests = str(SCRIPTS.parent / "tests")
    sys.path[:] = [str(SCRIPTS), *(path for path in sys.path if path not in ("", tests, str(SCRIPTS)))]
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        with suppress(BrokenPipeError):
            sys.stdout.flush()

"""Apply each mutation of ``*.json`` beside this file to a copy of the project, and run the tests that must notice it.

A file holds a list of objects:

    file, old, new   the text to replace, found exactly once, and what replaces it
    tests            what pytest runs: a list of its arguments, or one string of them
    why              the promise that the mutation breaks
    survives         optional: why no test notices it, which at most MAX_SURVIVORS may say

Ends with 1 if another one survives or does not apply, or if the tests fail without any mutation. Run by
``make mutations``; options: ``--jobs N``, ``--only TEXT`` (in a mutation's file, why or table), ``--timeout SECONDS``.
"""

import argparse
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAX_SURVIVORS = 5
PACKAGES = ("classifier", "launch", "dataset", "aws")
NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Mutation:
    """One replacement in one file."""

    table: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str
    survives: str | None = None

    @classmethod
    def parse(cls, table: str, entry: dict[str, Any]) -> "Mutation":
        """Raises TypeError for an entry with missing or unknown fields."""
        tests = entry.pop("tests")
        return cls(table=table, tests=tuple(shlex.split(tests) if isinstance(tests, str) else tests), **entry)


@dataclass(frozen=True)
class Result:
    """What became of a mutation: killed, SURVIVED, or why it could not be tried."""

    mutation: Mutation
    outcome: str
    seconds: float

    @property
    def is_accepted(self) -> bool:
        return self.outcome.startswith("killed") or (self.outcome == "SURVIVED" and bool(self.mutation.survives))

    def __str__(self) -> str:
        mutation = self.mutation
        reason = f"; accepted: {mutation.survives}" if self.outcome == "SURVIVED" and mutation.survives else ""
        return f"{self.outcome:<16} {self.seconds:4.0f} s  {mutation.file}: {mutation.why}{reason}"


class Checkout:
    """A copy of the project's files, tracked and new ones, which shares the virtual environment."""

    def __init__(self, folder: Path, num_threads: int) -> None:
        self.root = folder / "project"
        for name in _listed_files():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.root / name)
        (self.root / ".venv").symlink_to(ROOT / ".venv")
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        # The virtual environment's own path leads to the original, so the copy must come first on it.
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(self.root / name) for name in ("container", "scripts", "tests")),
            "OMP_NUM_THREADS": str(num_threads),
        }
        self._num_changes = 0
        self._check_imports()

    def apply(self, mutation: Mutation) -> str | None:
        """Replace the text; what is wrong with the mutation if that is impossible."""
        path = self.root / mutation.file
        if not path.is_file():
            return "does not apply: no such file"
        text = path.read_text(encoding="utf-8")
        if (count := text.count(mutation.old)) != 1:
            return f"does not apply: found {count} times"
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        self._touch(path)
        return None

    def restore(self, mutation: Mutation) -> None:
        shutil.copyfile(ROOT / mutation.file, self.root / mutation.file)
        self._touch(self.root / mutation.file)

    def run_tests(self, arguments: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        """Exit code of pytest, None where it ran out of time; and its output."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output
        return process.returncode, output

    def _touch(self, path: Path) -> None:
        # Bytecode is found by the second of its source's change and by its size, which may both be the same again.
        self._num_changes += 1
        second = int(time.time()) - 1_000_000 + self._num_changes
        os.utime(path, (second, second))

    def _check_imports(self) -> None:
        code = f"import {', '.join(PACKAGES)}\nfor one in ({', '.join(PACKAGES)}): print(one.__path__[0])"
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd="/", env=self._environment, capture_output=True, text=True, check=True
        )
        strangers = [path for path in ran.stdout.split() if not Path(path).is_relative_to(self.root)]
        if strangers:
            raise RuntimeError(f"the tests would import {', '.join(strangers)}, which no mutation reaches")


def main() -> int:
    options = _parse()
    mutations = [one for one in _read() if not options.only or options.only in f"{one.table} {one.file} {one.why}"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        checkouts: queue.SimpleQueue[Checkout] = queue.SimpleQueue()
        num_threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
        for number in range(options.jobs):
            checkouts.put(Checkout(Path(folder) / str(number), num_threads))
        if not _passes_unmutated(mutations, checkouts, options.jobs):
            return 1
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [pool.submit(_try, one, checkouts, options.timeout) for one in mutations]
            results = []
            for job in jobs:
                results.append(job.result())
                print(results[-1], flush=True)
    return _conclude(results, time.monotonic() - started)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="copies that are used at a time")
    parser.add_argument("--only", metavar="TEXT", help="only mutations with this text in their file, why or table")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for the tests of a mutation")
    return parser.parse_args()


def _read() -> list[Mutation]:
    return [
        Mutation.parse(table.stem, entry)
        for table in sorted(Path(__file__).parent.glob("*.json"))
        for entry in json.loads(table.read_text(encoding="utf-8"))
    ]


def _passes_unmutated(mutations: Sequence[Mutation], checkouts: "queue.SimpleQueue[Checkout]", num_jobs: int) -> bool:
    """Whether the tests pass as the project is: only then does a failure mean that a mutation was noticed."""
    # Options, such as -k, hold for the tests beside them alone.
    plain = {one.tests for one in mutations if not any(argument.startswith("-") for argument in one.tests)}
    runs = [sorted({argument for tests in plain for argument in tests})]
    runs += sorted({one.tests for one in mutations} - plain)
    checkout = checkouts.get()
    for arguments in filter(None, runs):
        workers = ("-n", str(num_jobs), "--dist", "worksteal") if num_jobs > 1 else ()
        code, output = checkout.run_tests([*workers, *arguments], timeout_s=3600)
        if code != 0:
            print(f"{output[-6000:]}\nmutations: without any mutation, pytest ended with {code}")
            return False
    checkouts.put(checkout)
    return True


def _try(mutation: Mutation, checkouts: "queue.SimpleQueue[Checkout]", timeout_s: float) -> Result:
    started = time.monotonic()
    checkout = checkouts.get()
    try:
        outcome = checkout.apply(mutation)
        if outcome is None:
            try:
                code, _ = checkout.run_tests(["-x", *mutation.tests], timeout_s)
            finally:
                checkout.restore(mutation)
            outcome = {0: "SURVIVED", NO_TESTS_COLLECTED: "no test ran", None: "killed (timeout)"}.get(code, "killed")
        return Result(mutation, outcome, time.monotonic() - started)
    finally:
        checkouts.put(checkout)


def _conclude(results: Sequence[Result], seconds: float) -> int:
    survivors = [one for one in results if one.outcome == "SURVIVED"]
    bad = [one for one in results if not one.is_accepted]
    killed = sum(one.outcome.startswith("killed") for one in results)
    print(
        f"{len(results)} mutations: {killed} killed, {len(survivors)} survived, {len(bad)} to look at; {seconds:.0f} s"
    )
    for one in bad:
        print(f"  {one.mutation.table}.json: {one}")
    for one in results:
        if one.mutation.survives and one.outcome.startswith("killed"):
            print(f"  {one.mutation.table}.json: killed, so drop its `survives`: {one.mutation.why}")
    return int(bool(bad) or len(survivors) > MAX_SURVIVORS)


def _listed_files() -> list[str]:
    """Files that git tracks or would track, as they are in the work tree."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in dict.fromkeys(names) if name and (ROOT / name).is_file()]


if __name__ == "__main__":
    sys.exit(main())

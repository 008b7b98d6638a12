"""All photos of a listing → their facts, side by side, in the listing's order, a bounded number of them at a time."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path

from classifier.errors import DataError
from launch.dataset.inspection import Facts, Task, Wishes, inspect_all
from launch.dataset.listing import Listing
from launch.progress import progress

_BATCH = 64  # photos handed over at once: few enough to share evenly, many enough to hide the handing over
_AHEAD = 4  # batches waiting for each worker
_PER_FOLDER = 1000


def aside(work: Path, number: int) -> Path:
    """Where a photo's bytes wait until it is known what becomes of it."""
    return work / "aside" / f"{number // _PER_FOLDER:06}" / f"{number:09}"


def check_photos(listing: Listing, work: Path, wishes: Wishes, jobs: int) -> list[Facts]:
    """Look at every photo in ``jobs`` processes: on small photos threads would wait for each other.

    Raises:
        DataError: a process was killed.
    """
    total = len(listing.photos)
    for start in range(0, total, _PER_FOLDER):
        aside(work, start).parent.mkdir(parents=True)
    facts: list[Facts] = []
    with progress("checking", total) as advance:
        for done in _run(_batches(listing, work), wishes, min(jobs, -(-total // _BATCH))):
            facts += done
            advance(len(done))
    return facts


def _batches(listing: Listing, work: Path) -> Iterator[list[Task]]:
    tasks = (Task(listing.path(photo), str(aside(work, i))) for i, photo in enumerate(listing.photos))
    while batch := list(islice(tasks, _BATCH)):
        yield batch


def _run(batches: Iterator[Sequence[Task]], wishes: Wishes, jobs: int) -> Iterator[list[Facts]]:
    if jobs <= 1:
        yield from (inspect_all(batch, wishes) for batch in batches)
        return
    # A forked process would inherit the locks of the progress bar's thread.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as executor:
        _start(executor, jobs)
        waiting: deque[Future[list[Facts]]] = deque()
        try:
            for batch in batches:
                waiting.append(executor.submit(inspect_all, batch, wishes))
                if len(waiting) >= jobs * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that checked photos was killed, most often for lack of memory: try again with --jobs 1"
            ) from None
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _start(executor: ProcessPoolExecutor, jobs: int) -> None:
    """Start the processes deaf to Ctrl-C, which reaches all of a terminal's: this one alone answers it, for all."""
    resource_tracker.ensure_running()  # started later, it would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(jobs):
            executor.submit(int)  # a process is started for each task that finds none idle
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

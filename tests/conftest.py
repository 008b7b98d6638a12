"""Fixtures that all tests share, the settings of a test process, and guards against state that leaks between tests."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import leaks
from support.browser import Browser, browsing
from support.drawing import draw_photo, encode, write_classes
from support.workers import WorkerSource

# The same examples in every run, as many as the default suite has time for.
settings.register_profile("tests", derandomize=True, database=None, deadline=None, max_examples=100)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
# Seconds for a test that is marked slow or docker; the docker tests may build the image first.
SLOW_TIMEOUT_S = 900
# Inherited by every program that a test starts: the PID of the process that ran the test.
STARTED_BY = "TESTS_PID"

_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Set up the process that runs tests; a worker of xdist is one, too.

    Each worker, and each program that it starts, keeps to its share of the cores. OMP_NUM_THREADS is set before torch
    is imported, which reads it once.

    A shell that starts pytest in the background ignores SIGINT, and every program started by a test would inherit
    that: the tests of Ctrl-C need Python's own handler.
    """
    os.environ[STARTED_BY] = str(os.getpid())
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(_threads(int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    elif len(specs := config.getoption("tx", None) or []) > 1 and set(specs) == {"popen"}:
        source = WorkerSource(_threads(len(specs)))
        config.add_cleanup(source.close)
        config.option.tx = [source.spec] * len(specs)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _threads(num_workers: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // num_workers)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:  # noqa: ARG001 - the hook's signature
    """Keep the garbage collector away from the objects that imports create, millions of which stay to the end."""
    gc.disable()
    result = yield
    gc.enable()
    gc.freeze()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(name) for name in ("slow", "docker")) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Drop what a failed test left open, so that its ResourceWarnings do not fail the next test of this worker."""
    result = yield
    if item.stash.get(_failed, False):
        # They keep the frames of the failed test, and all that is open in them.
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


@pytest.fixture(scope="session", autouse=True)
def no_process_left_by_the_session() -> Iterator[None]:
    """Fail the last test of a worker if a program that any of its tests started is still running, detached or not."""
    yield
    left = leaks.end(lambda: leaks.descendants(STARTED_BY, os.environ[STARTED_BY]))
    assert not left, f"programs left running:\n{left}"


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a child process running."""
    before = leaks.children()
    yield
    left = leaks.end(lambda: leaks.children() - before)
    assert not left, f"processes left running:\n{left}"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser, whose one page each test opens anew."""
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def photo() -> bytes:
    """A JPEG of 320 × 240: a red disc on a gradient."""
    return encode(draw_photo())


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A channel of three classes, easy to tell apart: ``cross``, ``disc`` and ``square``, eight small JPEGs each."""
    return write_classes(tmp_path / "train")


@pytest.fixture(scope="session")
def clothing_photos() -> Path:
    """``train/``, ``validation/`` and ``test/`` of 3,053 real photos in 10 classes."""
    return _shared(SHARED / "data" / "clothing10", "real photos")


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """A folder that holds ``mobilenet_v2_imagenet.pth``; good as a channel ``pretrained``."""
    return _shared(SHARED / "weights", "pretrained weights")


def _shared(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"no {what} on this machine: {os.path.relpath(path, ROOT)} does not exist")
    return path

"""Photos that are fetched anew whenever they are read (FastFile mode): local copies, and reading in order."""

import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from threading import Lock
from typing import IO, Any

import numpy as np

from classifier.training.plan import ShardOrder
from classifier.training.samples import SampleTable

_MAX_GAP = 1 << 20  # bytes between two photos that are read and not skipped, since a new position is a new request


class LocalCopies(os.PathLike[str]):
    """A temporary file without a name, which ends with the process, for photos that were read once already.

    Args:
        max_bytes: photos beyond are not copied; half of the free disk space unless given.
        num_ranks: of this host, which share that half.
    """

    def __init__(self, max_bytes: int | None = None, num_ranks: int = 1) -> None:
        self.folder = tempfile.gettempdir()
        self._num_bytes = 0
        self._is_full = False
        with tempfile.TemporaryFile(dir=self.folder) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._max_bytes = shutil.disk_usage(self.folder).free // 2 // num_ranks if max_bytes is None else max_bytes
        self._lock = Lock()

    def __fspath__(self) -> str:
        """Return a path by which this process and others on the host open the file."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, tuple[str, int, int]]]:
        """Pickle as what another process of the host finds it by; on another host it becomes None."""
        path = os.fspath(self)
        return _OtherCopies.find, (path, _identify(path))

    def add(self, data: bytes) -> int:
        """Copy a photo, and return where it begins in the file; -1 if there is no room."""
        with self._lock:
            offset = self._num_bytes
            if self._is_full or offset + len(data) > self._max_bytes:
                self._is_full = True
                return -1
            try:
                written = os.pwrite(self._descriptor, data, offset)
            except OSError:
                written = -1
            if written < len(data):  # the disk is full
                self._is_full = True
                return -1
            self._num_bytes += len(data)
            return offset


def _identify(path: str) -> tuple[str, int, int]:
    found = os.stat(path)  # noqa: PTH116 (a file without a name)
    return socket.gethostname(), found.st_dev, found.st_ino


class _OtherCopies(os.PathLike[str]):
    """The local copies of another process of this host, as long as that lives."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def find(cls, path: str, identity: tuple[str, int, int]) -> "_OtherCopies | None":
        try:
            return cls(path) if _identify(path) == identity else None
        except OSError:
            return None

    def __fspath__(self) -> str:
        return self._path


class WindowReader:
    """Reads the photos of an epoch window by window, each shard from start to end.

    Args:
        executor: reads a window ahead; None reads each when its first photo is needed.
    """

    def __init__(
        self, samples: SampleTable, order: ShardOrder, executor: Executor | None, *, seed: int, epoch: int
    ) -> None:
        self._samples, self._executor = samples, executor
        self._reading, self._ends = order.reading(seed, epoch)
        self._window_of = np.empty(len(samples), np.int32)
        self._window_of[self._reading] = np.searchsorted(self._ends, np.arange(len(samples)), side="right")
        self._windows: dict[int, Future[dict[int, bytes]]] = {}
        self._lock, self._is_closed = Lock(), False
        self._open: IO[bytes] | None = None

    def prepare(self, indices: np.ndarray) -> Callable[[int], bytes]:
        """Start to read the windows of these photos and the next one, and return a function that reads one of them."""
        needed = np.unique(self._window_of[indices]).tolist()
        if not needed:
            return self._samples.read
        for number in [*needed, *([needed[-1] + 1] if self._executor else [])]:
            if number not in self._windows and number < len(self._ends):
                self._windows[number] = self._submit(number)
        self._windows = {number: one for number, one in self._windows.items() if number >= needed[0]}
        windows = dict(self._windows)

        def read(index: int) -> bytes:
            data = windows[int(self._window_of[index])].result().get(index)
            return self._samples.read(index) if data is None else data

        return read

    def _submit(self, number: int) -> Future[dict[int, bytes]]:
        if self._executor is not None:
            # The one before was submitted before, so it never waits for a thread that waits for it.
            return self._executor.submit(self._read_window, number, after=self._windows.get(number - 1))
        done: Future[dict[int, bytes]] = Future()
        done.set_result(self._read_window(number))
        return done

    def _read_window(self, number: int, after: Future[dict[int, bytes]] | None = None) -> dict[int, bytes]:
        """Return the bytes of the photos of a window by their index, without those that have a local copy."""
        if after is not None:
            wait([after])
        rows = self._reading[int(self._ends[number - 1]) if number else 0 : int(self._ends[number])]
        with self._lock:
            read = {} if self._is_closed else {index: self._read_next(index) for index in rows.tolist()}
        return {index: data for index, data in read.items() if data is not None}

    def _read_next(self, index: int) -> bytes | None:
        if self._samples.copy_of(index):
            return None
        path, offset, size = self._samples.original(index)
        assert size is not None, "the photo is in a shard"
        file = self._file(path)
        gap = offset - file.tell()
        if 0 <= gap <= _MAX_GAP:
            file.read(gap)
        else:
            file.seek(offset)
        data = file.read(size)
        if len(data) < size:
            raise OSError(f"{path} ends before byte {offset + size:,}")
        return data

    def _file(self, path: str) -> IO[bytes]:
        if self._open is None or self._open.name != path:
            self._close_file()
            self._open = open(path, "rb", buffering=_MAX_GAP)  # noqa: PTH123, SIM115
        return self._open

    def _close_file(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def close(self) -> None:
        """Close the shard that is being read. Nothing is read from then on."""
        for window in self._windows.values():
            window.cancel()
        with self._lock:
            self._is_closed = True
            self._close_file()

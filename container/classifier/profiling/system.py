"""System utilization, sampled on a background thread, kept in memory and written for smdebug's readers.

The files are those of SageMaker's profiler: ``system/incremental/YYYYMMDDHH/<minute>.<node>.json``, a record per line.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import psutil
import pynvml

_MAX_SAMPLES = 20_000


class SystemSample(NamedTuple):
    """System utilization since the previous sample, in percent; rates in bytes (or operations) per second."""

    time_s: float  # Unix time
    cores: np.ndarray  # float32 (num_cores,): busy
    iowait: np.ndarray  # float32 (num_cores,): idle while waiting for a disk
    memory: float
    disk_operations: float = 0.0
    disk_read: float = 0.0
    disk_written: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    gpus: tuple[float, ...] = ()
    gpu_memory: tuple[float, ...] = ()


class SystemMonitor:
    """Samples of system utilization, computed from the kernel's counters and NVML."""

    def __init__(self, gpus: Gpus | None) -> None:
        self._gpus = gpus
        self._before = _Counters.read()

    def sample(self) -> SystemSample:
        """Return the utilization since the last call."""
        before, now = self._before, _Counters.read()
        self._before = now
        spent = np.maximum(now.cpu - before.cpu, 0)  # counters can decrease in a virtual machine
        total = np.maximum(spent.sum(axis=1), 1e-9)
        busy, _, iowait = (100 * spent / total[:, None]).astype(np.float32).T
        operations, read, written, received, sent = np.maximum(now.bytes - before.bytes, 0) / max(
            1e-9, now.time_s - before.time_s
        )
        gpus = self._gpus.read() if self._gpus else ()
        return SystemSample(
            time_s=time.time(),
            cores=busy,
            iowait=iowait,
            memory=psutil.virtual_memory().percent,
            disk_operations=operations,
            disk_read=read,
            disk_written=written,
            received=received,
            sent=sent,
            gpus=tuple(used for used, _ in gpus),
            gpu_memory=tuple(full for _, full in gpus),
        )


class _Counters(NamedTuple):
    time_s: float
    cpu: np.ndarray  # seconds (num_cores, 3): busy, idle, waiting for a disk
    bytes: np.ndarray  # disk operations, bytes read and written, bytes received and sent

    @classmethod
    def read(cls) -> _Counters:
        cpu = [_split(times) for times in psutil.cpu_times(percpu=True)]
        disk, cards = psutil.disk_io_counters(), psutil.net_io_counters(pernic=True)
        disks = (disk.read_count + disk.write_count, disk.read_bytes, disk.write_bytes) if disk else (0, 0, 0)
        network = [card for name, card in cards.items() if name != "lo"]
        received, sent = (
            sum(card.bytes_recv for card in network),
            sum(card.bytes_sent for card in network),
        )
        return cls(time.perf_counter(), np.array(cpu), np.array((*disks, received, sent), dtype=float))


def _split(times: Any) -> tuple[float, float, float]:
    """Seconds of one core: busy, idle, waiting for a disk."""
    iowait = getattr(times, "iowait", 0.0)
    # The kernel includes guest time in user time.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return sum(times) - guests - times.idle - iowait, times.idle, iowait


class Sampler:
    """A thread that samples the system every ``interval_s`` seconds until it is stopped.

    It never raises: the error that ended it, if there was one, is in ``failure``.
    """

    def __init__(self, folder: Path, node: str, interval_s: float) -> None:
        self.samples: list[SystemSample] = []
        self.failure: Exception | None = None
        self._files, self._interval_s = SystemFiles(folder, node), interval_s
        self._monitor = SystemMonitor(open_gpus())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and join the thread. At least one sample has been taken then, unless sampling failed."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            stride = 1
            for number, sample in enumerate(self._sample()):
                self._files.write(sample)
                if number % stride == 0:
                    self.samples.append(sample)
                if len(self.samples) >= _MAX_SAMPLES:  # a job of days keeps every second sample, then every fourth
                    del self.samples[1::2]
                    stride *= 2
        except Exception as error:
            self.failure = error
        finally:
            self._files.close()

    def _sample(self) -> Iterator[SystemSample]:
        due = time.monotonic() + self._interval_s
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval_s, time.monotonic())
            yield self._monitor.sample()
        if not self.samples:  # stopped before the first was due: sample the shorter time
            yield self._monitor.sample()


class SystemFiles:
    """Writer of samples in smdebug's format, one file per minute."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder, self._node = folder / "system" / "incremental", node
        self._minute, self._file = 0, None

    def write(self, sample: SystemSample) -> None:
        """Append a sample to its minute's file.

        Raises:
            OSError: the file cannot be written.
        """
        file = self._open(int(sample.time_s) // 60 * 60)
        for kind, name, dimension, value in _records(sample):
            record = {"Type": kind, "Name": name, "Dimension": dimension, "Value": round(value, 2)}
            file.write(json.dumps({**record, "Timestamp": sample.time_s, "NodeId": self._node}) + "\n")
        file.flush()

    def close(self) -> None:
        """Close the current file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, minute: int) -> IO[str]:
        if self._file is None or minute != self._minute:
            self.close()
            hour = time.strftime("%Y%m%d%H", time.gmtime(minute))
            path = self._folder / hour / f"{minute}.{self._node}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._minute, self._file = minute, path.open("a", encoding="utf-8")
        return self._file


def _records(sample: SystemSample) -> Iterator[tuple[str, str, str, float]]:
    """Type, name, dimension and value of each record, as SageMaker's own profiler names them."""
    for index, (busy, waiting) in enumerate(zip(sample.cores, sample.iowait, strict=True)):
        yield "cpu", f"cpu{index}", "CPUUtilization", float(busy)
        yield "cpu", f"cpu{index}", "I/OWaitPercentage", float(waiting)
    yield "memory", "MemoryUsedPercent", "", sample.memory
    yield "i/o", "IOPS", "", sample.disk_operations
    yield "i/o", "ReadThroughputInBytesPerSecond", "", sample.disk_read
    yield "i/o", "WriteThroughputInBytesPerSecond", "", sample.disk_written
    yield "network", "ReceiveBytesPerSecond", "Platform", sample.received
    yield "network", "TransmitBytesPerSecond", "Platform", sample.sent
    for index, (busy, full) in enumerate(zip(sample.gpus, sample.gpu_memory, strict=True)):
        yield "gpu", f"gpu{index}", "GPUUtilization", busy
        yield "gpu", f"gpu{index}", "GPUMemoryUtilization", full


class Gpus:
    """All GPUs that the driver reports through the NVIDIA Management Library (NVML)."""

    def __init__(self) -> None:
        """
        Raises:
            NVMLError: the library is missing, or a call to it failed.
        """
        pynvml.nvmlInit()
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]

    def read(self) -> Sequence[tuple[float, float]]:
        """Return utilization and used memory of each GPU, in percent.

        Raises:
            NVMLError: a call to NVML failed.
        """
        return [(_utilization(handle), _used_memory(handle)) for handle in self._handles]


def _utilization(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _used_memory(handle: Any) -> float:
    memory: Any = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return 100 * memory.used / memory.total


def open_gpus() -> Gpus | None:
    """Return the GPUs; None if there are none or their driver does not report utilization."""
    try:
        gpus = Gpus()
        return gpus if gpus.read() else None
    except (pynvml.NVMLError, ZeroDivisionError):
        return None

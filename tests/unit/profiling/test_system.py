"""Samples of system utilization, and files that smdebug reads."""

import threading
import time
from pathlib import Path

import numpy as np
import psutil

from classifier.profiling.system import Sampler, SystemFiles, SystemMonitor, open_gpus
from support.profiles import START_S, read_frames, sample, samples


def write(folder: Path, count: int, **values: object) -> None:
    files = SystemFiles(folder, "algo-1")
    for one in samples(count, **values):
        files.write(one)
    files.close()


def test_smdebug_reads_all_metrics(tmp_path: Path) -> None:
    write(tmp_path, 4, cores=(50, 75), iowait=(0, 12), disk_read=1e6, received=5.0, gpus=(90.0,), gpu_memory=(40.0,))
    frame = read_frames(tmp_path).get_all_system_metrics()
    assert list(frame.columns) == [
        "timestamp", "timestamp_us", "value", "system_metric", "dimension", "nodeID", "type",
    ]  # fmt: skip
    table = frame.groupby(["type", "system_metric", "dimension"])["value"].agg(["count", "mean"])
    assert {key: tuple(row) for key, row in table.T.items()} == {
        ("cpu", "cpu0", "CPUUtilization"): (4, 50),
        ("cpu", "cpu0", "I/OWaitPercentage"): (4, 0),
        ("cpu", "cpu1", "CPUUtilization"): (4, 75),
        ("cpu", "cpu1", "I/OWaitPercentage"): (4, 12),
        ("gpu", "gpu0", "GPUMemoryUtilization"): (4, 40),
        ("gpu", "gpu0", "GPUUtilization"): (4, 90),
        ("i/o", "IOPS", ""): (4, 0),
        ("i/o", "ReadThroughputInBytesPerSecond", ""): (4, 1e6),
        ("i/o", "WriteThroughputInBytesPerSecond", ""): (4, 0),
        ("memory", "MemoryUsedPercent", ""): (4, 20),
        ("network", "ReceiveBytesPerSecond", "Platform"): (4, 5),
        ("network", "TransmitBytesPerSecond", "Platform"): (4, 0),
    }
    assert set(frame["nodeID"]) == {"algo-1"}
    assert (frame["timestamp_us"] >= 0).all()


def test_each_minute_has_a_file_in_the_folder_of_its_hour(tmp_path: Path) -> None:
    write(tmp_path, 300)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    first = int(START_S) // 60 * 60
    hour = time.strftime("%Y%m%d%H", time.gmtime(first))
    assert files[0] == f"system/incremental/{hour}/{first}.algo-1.json"
    assert len(files) == 3
    assert len(read_frames(tmp_path).get_all_system_metrics()) == 300 * 10


def test_samples_are_appended_to_an_existing_file(tmp_path: Path) -> None:
    write(tmp_path, 2)
    files = SystemFiles(tmp_path, "algo-1")
    files.write(sample(2))
    files.close()
    assert len(read_frames(tmp_path).get_all_system_metrics()) == 3 * 10


def test_sample_has_the_utilization_of_this_machine() -> None:
    machine = SystemMonitor(None)
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    one = machine.sample()
    assert len(one.cores) == len(one.iowait) == psutil.cpu_count()
    assert one.cores.max() > 0
    for values in (one.cores, one.iowait, np.array([one.memory])):
        assert ((values >= 0) & (values <= 100)).all()
    assert min(one.disk_operations, one.disk_read, one.disk_written, one.received, one.sent) >= 0


def test_at_least_one_sample_is_taken(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path, "algo-1", 60)
    sampler.start()
    sampler.stop()
    assert len(sampler.samples) == 1
    assert not read_frames(tmp_path).get_all_system_metrics().empty


def test_stop_ends_the_thread_and_all_samples_are_written(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path, "algo-1", 0.01)
    sampler.start()
    while len(sampler.samples) < 3:
        time.sleep(0.01)
    sampler.stop()
    assert sampler.failure is None
    assert not any(thread.name == "profiler" for thread in threading.enumerate())
    taken = len(sampler.samples)
    assert len(read_frames(tmp_path).get_all_system_metrics()["timestamp"].unique()) == taken


def test_sampler_that_cannot_write_ends_and_keeps_its_error(tmp_path: Path) -> None:
    (tmp_path / "system").write_text("in the way")
    sampler = Sampler(tmp_path, "algo-1", 0.01)
    sampler.start()
    while sampler.failure is None:
        time.sleep(0.01)
    sampler.stop()
    assert isinstance(sampler.failure, OSError)


def test_gpus_are_optional() -> None:
    gpus = open_gpus()
    for busy, full in gpus.read() if gpus else ():
        assert 0 <= busy <= 100
        assert 0 <= full <= 100

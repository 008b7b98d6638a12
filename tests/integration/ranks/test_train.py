"""The program ``train`` on two hosts, which are processes on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, descendants, is_running
from support.drawing import write_classes
from support.jobs import TINY

pytestmark = [pytest.mark.slow, pytest.mark.gate]

# What the design promises, on a machine that has more to do.
TOLD_S, STOPPED_S = 10.0, 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 2)
    yield cluster
    cluster.close()


def start(cluster: Cluster, train: Path, **hyperparameters: str) -> None:
    cluster.lay_out({"train": train}, {**TINY, **hyperparameters})
    for name in cluster.names:
        cluster.start_train(name, TRAIN_HEARTBEAT_S="20")


def start_endless(cluster: Cluster) -> dict[str, int]:
    """Start a training that does not end by itself; return the process ID of each host's rank after an epoch."""
    start(cluster, write_classes(cluster.folder / "photos", photos_per_class=40), epochs="1000")
    cluster.wait_until(lambda: cluster.hosts["algo-1"].lines("epoch"))
    return {name: descendants(host.process.pid)[0] for name, host in cluster.hosts.items()}


def written(cluster: Cluster, name: str) -> list[str]:
    """Return what a host has in the folders that the platform merges with those of the others."""
    base = cluster.base(name)
    return [path.name for folder in ("model", "output/data") for path in (base / folder).iterdir()]


def test_reason_of_one_rank_is_in_both_failure_files(cluster: Cluster) -> None:
    train = write_classes(cluster.folder / "photos", photos_per_class=2)
    for photo in (train / "disc").iterdir():
        photo.write_bytes(b"")
    start(cluster, train)
    assert cluster.wait() == {"algo-1": 1, "algo-2": 1}
    assert cluster.failure("algo-1") == cluster.failure("algo-2")
    assert (cluster.failure("algo-1") or "").startswith("DataError: ")


def test_killed_rank_is_named_in_both_failure_files(cluster: Cluster) -> None:
    pids = start_endless(cluster)
    os.kill(pids["algo-2"], signal.SIGKILL)
    killed_s = time.monotonic()
    cluster.wait_until(lambda: all(map(cluster.failure, cluster.names)))
    assert time.monotonic() - killed_s < TOLD_S
    assert cluster.wait() == {"algo-1": 2, "algo-2": 2}
    for name in cluster.names:
        assert (cluster.failure(name) or "").startswith("rank 1 on algo-2 was killed by signal 9 (SIGKILL), ")
    # The report shows what was trained until then, and why that was the end.
    assert "was killed by signal 9" in (cluster.base("algo-1") / "output/data/report.html").read_text(encoding="utf-8")
    assert written(cluster, "algo-2") == []
    assert not any(map(is_running, pids.values()))


def test_stopped_rank_is_named_in_both_failure_files(cluster: Cluster) -> None:
    pids = start_endless(cluster)
    os.kill(pids["algo-1"], signal.SIGSTOP)
    assert cluster.wait() == {"algo-1": 2, "algo-2": 2}
    for name in cluster.names:
        reason = "rank 0 on algo-1 was stopped by a signal, and has not gone on for 20 s\n"
        assert cluster.failure(name) == reason


def test_sigterm_to_one_host_ends_both_with_a_checkpoint_from_which_one_goes_on(cluster: Cluster) -> None:
    start_endless(cluster)
    before = {path.name for path in (cluster.folder / "checkpoints").iterdir()}
    cluster.hosts["algo-2"].process.send_signal(signal.SIGTERM)
    stopped_s = time.monotonic()
    assert cluster.wait() == {"algo-1": 0, "algo-2": 0}
    assert time.monotonic() - stopped_s < STOPPED_S
    assert "stopped     by SIGTERM; the best model so far is kept" in cluster.hosts["algo-1"].log
    assert [cluster.failure(name) for name in cluster.names] == [None, None]
    assert {path.name for path in (cluster.folder / "checkpoints").iterdir()} - before
    assert (cluster.base("algo-1") / "model" / "model.safetensors").exists()
    assert "report.html" in written(cluster, "algo-1")
    assert written(cluster, "algo-2") == []
    assert not cluster.hosts["algo-2"].lines("epoch")

    alone = Cluster(cluster.folder, 1)
    alone.lay_out({"train": cluster.folder / "photos"}, {**TINY, "epochs": "1000"})
    host = alone.start_train("algo-1")
    try:
        alone.wait_until(lambda: host.lines("resumed"))
    finally:
        alone.close()

"""Cores within the CPU quota of the cgroup, and what training does with them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from classifier import host
from classifier.contract.hyperparameters import Hyperparameters
from classifier.training import fit


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the cgroup's, on a machine with eight cores."""
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four torch threads and no OMP_NUM_THREADS; restored afterwards."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 50000", 3),
        ("250000 100000", 2),
        ("260000 100000", 3),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("6400000 100000", 8),
    ],
)
def test_cores_are_limited_by_the_quota_of_cgroup_v2(cgroup: Path, content: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(f"{content}\n")
    assert host.num_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (0, 8), (200_000, 2), (50_000, 1), (6_400_000, 8)])
def test_cores_are_limited_by_the_quota_of_cgroup_v1(cgroup: Path, quota: int, cores: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert host.num_cores() == cores


def test_all_cores_are_used_without_a_cgroup(cgroup: Path) -> None:
    assert not list(cgroup.iterdir())
    assert host.num_cores() == 8


def test_each_rank_of_a_host_has_its_share_of_the_cores(cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text("500000 100000\n")
    assert [host.num_cores({"LOCAL_WORLD_SIZE": text}) for text in ("1", "2", "8")] == [5, 2, 1]


@pytest.mark.parametrize(
    ("names", "visible", "expected"),
    [
        (["nvidiactl", "nvidia0", "nvidia1", "nvidia10", "nvidia-uvm", "nvidia-caps"], None, 3),
        (["nvidiactl", "nvidia0", "nvidia1"], "", 0),
        (["nvidiactl", "nvidia0", "nvidia1"], "1", 1),
        (["nvidiactl", "nvidia0"], "0,1", 1),
        (["nvidiactl", "nvidia0"], "-1", 0),
        ([], None, 0),
        ([], "0", 0),
    ],
)
def test_gpus_are_counted_by_their_device_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], visible: str | None, expected: int
) -> None:
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(host, "GPU_DEVICE", tmp_path / "nvidiactl")
    assert host.num_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.parametrize(("num_workers", "expected"), [("auto", 3), ("0", 0), ("5", 5)])
def test_decoding_threads_follow_the_quota_unless_configured(cgroup: Path, num_workers: str, expected: int) -> None:
    (cgroup / "cpu.max").write_text("300000 100000\n")
    assert fit.count_workers(Hyperparameters.parse({"num_workers": num_workers})) == expected


@pytest.mark.usefixtures("threads")
def test_torch_threads_follow_the_quota(cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text("300000 100000\n")
    fit.limit_threads()
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads", "cgroup")
def test_torch_threads_are_not_raised_to_the_number_of_cores() -> None:
    fit.limit_threads()
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threads")
def test_torch_threads_set_by_the_environment_are_kept(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cgroup / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    fit.limit_threads()
    assert torch.get_num_threads() == 4


def write_memory_v2(cgroup: Path, limit: str) -> None:
    for name, content in (("max", limit), ("current", "700"), ("stat", "anon 100\ninactive_file 300\n")):
        (cgroup / f"memory.{name}").write_text(f"{content}\n")


def test_dropped_cache_counts_as_available_memory_in_cgroup_v2(cgroup: Path) -> None:
    write_memory_v2(cgroup, "1000")
    assert host.available_memory() == 600


def test_dropped_cache_counts_as_available_memory_in_cgroup_v1(cgroup: Path) -> None:
    (cgroup / "memory").mkdir()
    for name, content in (("limit_in_bytes", "1000"), ("usage_in_bytes", "900"), ("stat", "total_inactive_file 50")):
        (cgroup / "memory" / f"memory.{name}").write_text(f"{content}\n")
    assert host.available_memory() == 150


def test_available_memory_is_never_negative(cgroup: Path) -> None:
    write_memory_v2(cgroup, "200")
    assert host.available_memory() == 0


def test_machines_memory_is_available_without_a_limit(cgroup: Path) -> None:
    write_memory_v2(cgroup, "max")
    assert 1 << 20 < host.available_memory() < 1 << 50

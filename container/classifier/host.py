"""The host's cores and memory within the cgroup's limits, CPU instructions, GPU and malloc. Imports no torch."""

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

GPU_DEVICE = Path("/dev/nvidiactl")
_CGROUP = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")
_UNKNOWN_MEMORY = 1 << 62

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_LARGE_BLOCK = 1 << 20


def num_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of usable cores: the CPU affinity, limited by the cgroup's quota (``docker --cpus``).

    Of several ranks on a host, each has its share.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    cores = available if quota is None else min(available, round(quota))
    return max(1, cores // int(environment.get("LOCAL_WORLD_SIZE", "1")))


def _cgroup_quota() -> float | None:
    """Return the CPU quota of this process's cgroup in cores, or None without one; cgroup v2, then v1."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)


def available_memory() -> int:
    """Return the bytes that this process can still allocate: the machine's, or what its cgroup's limit leaves.

    Cached files that the kernel can drop count as available; the cgroup counts them as used.
    """
    return max(0, min(_machine_available(), _cgroup_available()))


def _machine_available() -> int:
    try:
        lines = _MEMORY_INFO.read_text(encoding="ascii").splitlines()
    except OSError:
        # Not Linux, so not the platform: free memory is unknown.
        return _UNKNOWN_MEMORY
    sizes = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return next(sizes, _UNKNOWN_MEMORY)


def _cgroup_available() -> int:
    """Return what the limit of this process's cgroup leaves, without one a very large number; cgroup v2, then v1."""
    versions = (
        (_CGROUP, "memory.max", "memory.current", "inactive_file"),
        (_CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder, limit, used, cached in versions:
        try:
            pairs = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            droppable = next((int(value) for name, value in pairs if name == cached), 0)
            return int((folder / limit).read_text()) - int((folder / used).read_text()) + droppable
        except (OSError, ValueError):
            continue
    return _UNKNOWN_MEMORY


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX-512 BF16 or AMX)."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})


def cpu_has_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers without intermediate overflow (VNNI)."""
    return bool(_cpu_flags() & {"avx512_vnni", "avx_vnni"})


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        return frozenset(_CPU_INFO.read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


def hides_gpus(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` hides all GPUs: it is empty, or -1, as many programs set it."""
    return environment.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1")


def has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an NVIDIA GPU is visible, by its device files, since torch takes seconds to import.

    ``/proc/driver/nvidia`` does not count: a container that was given no GPU sees it, too.
    """
    if hides_gpus(environment):
        return False
    return GPU_DEVICE.exists() or any(GPU_DEVICE.parent.glob("nvidia[0-9]*"))


def tune_malloc(workload: Literal["training", "serving"]) -> None:
    """Tune glibc's malloc for the workload. Does nothing with another C library.

    Training on a CPU allocates and frees the same large tensors in every step. By default glibc maps and unmaps each,
    and the page faults took a third to a half of the time, so freed blocks are kept for reuse.

    Serving must return the memory of a large photo after its response. By default glibc soon allocates such blocks
    from per-thread heaps and never returns them, so large blocks are mapped, and the number of heaps is bounded.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if workload == "training":
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
    else:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK)
        mallopt(_M_ARENA_MAX, max(num_cores(), 2))


def num_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of visible NVIDIA GPUs, by their device files, since torch takes seconds to import."""
    if hides_gpus(environment):
        return 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    found = sum(1 for path in GPU_DEVICE.parent.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    return found if visible is None else min(found, sum(1 for one in visible.split(",") if one.strip()))


def trim_malloc() -> None:
    """Return the free pages of glibc's heaps to the system. Does nothing with another C library.

    A heap shrinks by itself only at its end, where one small block that is still used keeps all that lies before it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

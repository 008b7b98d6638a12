"""How busy the GPUs are and how full, from the NVIDIA driver's own library. No driver, no GPU: nothing to tell."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Gpus:
    """All GPUs that the driver shows. The calls are those of NVIDIA's Management Library (NVML).

    Raises:
        OSError: the library is not there, or refuses.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnvidia-ml.so.1")
        self._call("nvmlInit_v2")
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        self._handles = [self._handle(index) for index in range(count.value)]

    def read(self) -> Sequence[tuple[float, float]]:
        """For each GPU: share of the time in which it computed, and share of its memory in use, in percent."""
        return [(self._utilization(handle), self._memory(handle)) for handle in self._handles]

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _utilization(self, handle: ctypes.c_void_p) -> float:
        value = _Utilization()
        self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(value))
        return float(value.gpu)

    def _memory(self, handle: ctypes.c_void_p) -> float:
        value = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(value))
        return 100 * value.used / value.total

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise OSError(f"{name} answered {code}")


def open_gpus() -> Gpus | None:
    """None where there is no GPU, or the driver does not tell of it."""
    try:
        gpus = Gpus()
        return gpus if gpus.read() else None
    except (OSError, AttributeError, ZeroDivisionError):
        return None

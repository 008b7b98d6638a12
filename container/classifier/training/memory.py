"""How the C library keeps freed memory; nothing about the GPU's."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let malloc reuse large blocks instead of giving each back to the system.

    A step on a CPU allocates and frees the same large tensors over and over. By default glibc maps and unmaps each, and
    the page faults of it cost a third to a half of the time. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)

"""What the C library does with memory that is freed."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB for the next step, which needs the same again; elsewhere nothing happens.

    Else it returns large tensors to the kernel as soon as they are freed, and each page of the next one is a fault.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)

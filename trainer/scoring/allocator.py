"""Memory that scoring frees stays with the process, so that the next batch does not ask the system for it again."""

from __future__ import annotations

import ctypes
import functools
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
KEPT = 2**28
"""Bytes that may lie free at the heap's end."""
FROM_HEAP = 2**25
"""Bytes of a single piece that still comes from the heap, the most that glibc takes."""


@functools.cache
def keep_freed_memory() -> None:
    """On Linux with glibc, once a process. Else nothing happens.

    Without gradients each layer's output is freed at once, by default back to the system; to be given the pages again,
    and have them cleared, took up to half of the time.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(ctypes.c_int(MMAP_THRESHOLD), ctypes.c_int(FROM_HEAP))
    mallopt(ctypes.c_int(TRIM_THRESHOLD), ctypes.c_int(KEPT))

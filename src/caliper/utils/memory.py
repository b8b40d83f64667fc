"""Keeps freed memory in the process on Linux, so that an update reuses pages instead of faulting them in."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEEP = 1 << 30  # bytes; blocks below it come from the heap, and the heap is not trimmed below it
OLD_LIMIT = 32 << 20  # the most that older glibc takes as M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Tells glibc not to give large freed blocks back to the system; does nothing elsewhere.

    By default large blocks (from 128 KiB to 32 MiB on, it adapts) are mapped anew each time, and the kernel
    zeroes their pages at first touch. Measured for Cal-QL on two 64x64 cameras, encoder `conv`, one CPU
    thread: page faults per update fall from thousands to about fifty, CPU time by 2 to 5 % in bfloat16 and by
    8 to 20 % in float32.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library, such as musl
        return
    if not mallopt(M_MMAP_THRESHOLD, KEEP):
        mallopt(M_MMAP_THRESHOLD, OLD_LIMIT)
    mallopt(M_TRIM_THRESHOLD, KEEP)

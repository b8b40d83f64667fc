"""What of the machine this process may use."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container, on Linux: "200000 100000" is two cores


def cores() -> int:
    """CPU cores for this process: those it is bound to, or fewer where its container has a smaller quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = QUOTA.read_text().split()
        return max(1, min(bound, int(most) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no container, or "max": no quota
        return bound

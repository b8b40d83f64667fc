"""Simulation: robosuite's scenes on batched MuJoCo, with cameras. Knows nothing of learning."""

import ctypes
import os

import warp as wp

# A library prints no banner and no compile times; `caliper doctor` tells what Warp found.
wp.config.log_level = wp.LOG_ERROR
# Machine code for the very GPU, which is what `caliper doctor --precompile` makes ahead. Left alone,
# Warp takes PTX for an older one if the driver is newer than its own CUDA; without a choice it still does.
wp.config.cuda_output = "cubin"


def _start_warp() -> None:
    """Starts Warp, without the line its native code prints where there is no CUDA driver.

    No setting turns that line off, so standard error is led away for the moment, and only where the driver is
    missing; a failure to start is still raised.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            wp.init()  # type: ignore[no-untyped-call]  # Warp's own
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
    else:
        wp.init()  # type: ignore[no-untyped-call]  # Warp's own


_start_warp()

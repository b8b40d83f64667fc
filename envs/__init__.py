"""Simulation: robosuite's scenes on batched MuJoCo, with cameras. Knows nothing of learning.

`base` is the contract of a vectorised environment and `sim` what keeps it: a task (`tasks`), its scene
(`scene`), a robot and its controller (`robot`), an engine for the physics (`engines`), images and numbers for
the policy (`render`, `observation`). `scripts` record demonstrations.
"""

import atexit
import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

import warp as wp

# A library prints no banner and no compile times; `caliper doctor` tells what Warp found.
wp.config.log_level = wp.LOG_ERROR
# Machine code for the very GPU, which is what `caliper doctor --precompile` makes ahead. Left alone,
# Warp takes PTX for an older one if the driver is newer than its own CUDA; without a choice it still does.
wp.config.cuda_output = "cubin"


def _choose_caches() -> None:
    """Lets Warp and numba keep compiled code in a folder of this process where they may write to no other.

    Each would end in a traceback; so they compile anew in every process, which is said.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/nowhere"), ".cache"))
    missing = [name for name in ("WARP_CACHE_PATH", "NUMBA_CACHE_DIR") if name not in os.environ]
    if not missing or _writable(caches / "warp"):
        return
    folder = tempfile.mkdtemp(prefix="caliper-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(dict.fromkeys(missing, folder))
    print(
        f"caliper: {caches} cannot be written to, so code is compiled anew in each process, a minute or two; "
        "set XDG_CACHE_HOME to a folder that can",
        file=sys.stderr,
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


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


_choose_caches()
_start_warp()


def _import_mujoco() -> None:
    """Imports MuJoCo as where no OpenGL is chosen.

    Its Python package imports a renderer, which nothing here uses, by the name in MUJOCO_GL, and fails where
    that is not installed: for `osmesa`, which people of this field often have set, by a segmentation fault.
    """
    chosen = os.environ.pop("MUJOCO_GL", None)
    try:
        import mujoco  # noqa: F401
    finally:
        if chosen is not None:
            os.environ["MUJOCO_GL"] = chosen


_import_mujoco()

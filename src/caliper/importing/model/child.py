"""The process that compiles models of strangers: `compiled` beside it runs it, nobody imports it.

MuJoCo's readers of XML, meshes and images were not made for hostile bytes: a few words can make them fill
the memory, run for hours or crash. So this process compiles what it is sent under limits of time and memory.
It reads a line of JSON and a model's XML, and answers with a line of JSON and the compiled model.

    {"do": "physics", "assets": null, "length": 3000}   {"length": 48000, "lost": []}, then the bytes
    {"do": "looks", "assets": "/meshes", "length": 90}  {"error": "its model is no XML (...)"}
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caliper.envs.scene.scenes import build
from caliper.errors import CaliperError
from caliper.importing.model.assets import robosuite_assets
from caliper.importing.model.repair import physics_spec, visual_spec

MEMORY = 4 << 30  # bytes beyond what the process holds when it starts; a scene's looks take 1.5
CPU_SECONDS = {"physics": 20, "looks": 60}  # for one model; robosuite's take half a second and three
ONE_STEP = 1.0  # CPU seconds that a control step of 25 physics steps may take; the largest known take 0.05
LARGEST = 1 << 30  # bytes of a compiled model
LARGEST_STATE = (
    64 << 20
)  # bytes of what MuJoCo keeps of a moving model; a robot's and four objects' are 0.4 MB


def main() -> None:
    """Serves until the asker hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the asker decides
    mujoco.set_mju_user_warning(lambda _: None)  # they would go to a file in the user's folder
    robosuite_assets()  # which imports robosuite
    Image.preinit()
    confine()
    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in asked:
        request = json.loads(line)
        xml = asked.read(request["length"]).decode("utf-8", "replace")
        grant(CPU_SECONDS[request["do"]])
        content = b""
        try:
            model, lost = compiled(request["do"], xml, request["assets"] and Path(request["assets"]))
            content = packed(model)
            answer: dict[str, object] = {"length": len(content), "lost": lost}
        except CaliperError as error:
            answer = {"error": str(error)}
        except RecursionError:
            answer = {"error": "its model is nested deeper than any of robosuite's"}
        except MemoryError:
            answer = {"error": "its model needs more memory than any of robosuite's"}
        except Exception as error:  # whatever the bytes of its meshes and images lead to
            said = " ".join(str(error).split())[:300]
            if "unknown exception" in said:  # how MuJoCo reports, mostly, that no memory is left
                said = "it fails without saying why, or for want of memory"
            answer = {"error": f"MuJoCo does not compile its model: {said}"}
        told.write(json.dumps(answer).encode("ascii") + b"\n" + content)
        told.flush()


def confine() -> None:
    """Limits this process; a platform without one of the limits goes without it."""
    held = 0
    with suppress(OSError), open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, held + MEMORY),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


def grant(seconds: int) -> None:
    """Lets this process run for so many more CPU seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + seconds, most))


def compiled(kind: str, xml: str, assets: Path | None) -> tuple[mujoco.MjModel, list[str]]:
    """The physics or the looks of a model, and what could not be found of its looks.

    Raises:
        CaliperError: no model, or one that no demonstration was recorded with.
        ValueError: MuJoCo does not compile it.
    """
    if kind == "looks":
        spec, lost = visual_spec(xml, assets)
        model = build(lambda: spec).model
    else:
        lost = []
        model = physics_spec(xml, assets).compile()
    if (size := mujoco.mj_sizeModel(model)) > LARGEST:
        raise CaliperError(f"its model takes {size / 2**30:.1f} GiB, more than any of robosuite's")
    try_out(model)
    return model, lost


def try_out(model: mujoco.MjModel) -> None:
    """Moves a model for one control step, which would otherwise be the asker's own risk.

    Raises:
        CaliperError: it cannot be moved, or is too slow to be a robot's.
    """
    data, before = mujoco.MjData(model), time.process_time()
    if data.nbuffer > LARGEST_STATE:
        raise CaliperError(
            f"its model takes {data.nbuffer / 2**20:.0f} MiB to move, more than any of robosuite's"
        )
    for _ in range(25):
        try:
            mujoco.mj_step(model, data)
        except mujoco.FatalError as error:
            said = " ".join(str(error).split())[:200]
            raise CaliperError(f"MuJoCo cannot move its model: {said}") from error
        if time.process_time() - before > ONE_STEP:
            raise CaliperError(f"a control step of its model takes more than {ONE_STEP:g} s to compute")


def packed(model: mujoco.MjModel) -> bytes:
    """A model as MuJoCo's binary format."""
    buffer: NDArray[np.uint8] = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


if __name__ == "__main__":
    main()

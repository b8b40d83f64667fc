"""What simpler collision hulls would save: `lift` on Warp's CPU device; one of the Panda's has 1588 vertices.

MuJoCo finds the support point of a hull by climbing from vertex to vertex, so a large one need not be slow.
Measured for the hulls as they are and for at most 128 and 32 vertices (MuJoCo's `maxhullvert`, on colliding
meshes): time of a control step, and memory per env.

    python benchmarks/hulls.py            # 64 envs; writes results/hulls.json
    python benchmarks/hulls.py --quick    # 4 envs, 3 steps, writes nothing
"""

import time

import mujoco
import numpy as np
import torch
import warp as wp
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.envs.engines.memory import env_bytes
from caliper.envs.engines.room import CONSTRAINTS, CONTACTS, CONVEX
from caliper.envs.engines.warp import WarpEngine
from caliper.envs.robot.control import Control
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.scenes import harmonise
from caliper.envs.tasks import make_task

LARGEST = (None, 128, 32)  # vertices of a hull


def compiled(largest):
    """The scene of `lift` with hulls of at most so many vertices, and how many each colliding mesh has."""
    spec = harmonise(make_task("lift").compose())
    collide = {geom.meshname for geom in spec.geoms if geom.contype or geom.conaffinity}
    for mesh in spec.meshes:
        if largest and mesh.name in collide:
            mesh.maxhullvert = largest
    model = spec.compile()
    hulls = {}
    for geom in range(model.ngeom):
        kind = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
        if kind and (model.geom_contype[geom] or model.geom_conaffinity[geom]):
            hulls[model.geom(geom).name] = int(model.mesh_graph[model.mesh_graphadr[model.geom_dataid[geom]]])
    return model, hulls


def measure(largest, n, steps):
    model, hulls = compiled(largest)
    engine = WarpEngine(model, n, Control(), torch.device("cpu"))
    engine.qpos[:, torch.as_tensor(engine.controller.index.qpos)] = torch.tensor(
        robot_facts("panda").posture
    ).float()
    engine.refresh()
    action, generator = wp.to_torch(engine.controller.action), torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(2 + steps):  # the first two load and record
        action.copy_(2 * torch.rand(action.shape, generator=generator) - 1)
        start = time.process_time()
        engine.advance(25)
        seconds.append(time.process_time() - start)
    held, besides = env_bytes(model, CONTACTS, CONSTRAINTS, CONVEX)
    return {
        "vertices": max(hulls.values()),
        "CPU milliseconds of a control step": round(1e3 * float(np.median(seconds[2:])), 1),
        "KiB an env holds": round(held / 2**10, 1),
        "KiB besides while stepping": round(besides / 2**10, 1),
    }


def main():
    args = arguments(__doc__.splitlines()[0])
    n, steps = (4, 3) if args.quick else (64, 40)
    rows = {}
    for largest in LARGEST:
        rows[str(largest or "as they are")] = measure(largest, n, steps)
        print(largest, rows[str(largest or "as they are")], flush=True)
    name = "CPU milliseconds of a control step"
    ours, peer = rows["32"][name], rows["as they are"][name]
    report(
        "hulls",
        ours=ours,
        peer=peer,
        ratio=round(peer / ours, 2),
        unit=f"{name} of {n} envs of lift on Warp's CPU device, hulls of 32 vertices and as they are",
        packages=("mujoco", "mujoco-warp", "warp-lang", "torch"),
        quick=args.quick,
        envs=n,
        hulls=rows,
    )


if __name__ == "__main__":
    main()

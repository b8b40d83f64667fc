"""How far the solver's slowest env is from the usual one, and how much memory contacts take.

Envs on Warp's CPU device under random actions and under the scripted expert. A control step of a batch on a
GPU lasts as long as its slowest env, so what counts is the tail: iterations of the Newton solver, and the
share of env-steps whose line search ran into its limit. Memory for contacts, constraint rows and
penetrating convex pairs is shared by all envs, or set aside for each, and has to hold the largest number.

    python benchmarks/solver_tail.py            # 64 envs, 200 steps; writes results/solver_tail.json
    python benchmarks/solver_tail.py --quick    # 4 envs, 3 steps, writes nothing
"""

from contextlib import contextmanager

import mujoco_warp as mjw
import torch
import warp as wp
from _common import parser, report  # type: ignore[import-not-found]  # beside this script
from mujoco_warp._src.types import GeomType

from caliper.envs.graphs import WarpGraph
from caliper.envs.scripts.experts import Expert
from caliper.envs.sim import SimEnv

PAIRS = len(GeomType) * (len(GeomType) + 1) // 2


@contextmanager
def watching_convex_pairs(found):
    """Notes the array in which MuJoCo Warp counts penetrating convex pairs, by kinds of geoms."""
    zeros = wp.zeros

    def watched(shape=None, *args, **kwargs):
        array = zeros(shape, *args, **kwargs)
        if shape == PAIRS:
            found.append(array)
        return array

    wp.zeros = watched
    try:
        yield
    finally:
        wp.zeros = zeros


def measure(task, driver, n, steps):
    """Largest numbers over all physics steps, and the distribution of the solver's iterations."""
    env = SimEnv(task, n, sim="warp", cameras=(), threads=1)
    engine, data = env.engine, env.engine.mjw_data
    expert = Expert(env, torch.full((n,), 0.3), torch.zeros(n))
    generator = torch.Generator().manual_seed(0)
    counts = []

    def substep():
        engine.controller.apply()
        mjw.step2(engine.mjw_model, data)
        mjw.step1(engine.mjw_model, data)

    graph = WarpGraph(engine.wp_device)
    iterations, overflow = wp.to_torch(data.solver_niter), wp.to_torch(data.overflow)
    rows, contacts = wp.to_torch(data.nefc), wp.to_torch(data.nacon)
    world = wp.to_torch(data.contact.worldid)
    histogram = torch.zeros(engine.mjw_model.opt.iterations + 1, dtype=torch.int64)
    most = {"contacts": 0, "constraint rows": 0, "convex pairs of one kind, all envs together": 0}
    bits = {name: 0 for name in ("ITERATIONS", "LS_ITERATIONS", "EPA_HORIZON")}
    longest = []
    for _ in range(steps):
        if driver == "expert":
            action = expert.act()
        else:
            action = 2 * torch.rand(n, env.action_dim, generator=generator) - 1
        env._action[:, :6], env._action[:, 6] = action[:, :-1], action[:, -1]
        engine.controller.set_goal()
        for _ in range(env._substeps):
            with watching_convex_pairs(counts):
                graph(substep)
            histogram += torch.bincount(iterations.long(), minlength=len(histogram))
            longest.append(int(iterations.max()))
            most["constraint rows"] = max(most["constraint rows"], int(rows.max()))
            held = torch.bincount(world[: int(contacts[0])].long(), minlength=n)
            most["contacts"] = max(most["contacts"], int(held.max()))
            pairs = int(counts[-1].numpy().max())
            key = "convex pairs of one kind, all envs together"
            most[key] = max(most[key], pairs)
            for name in bits:
                bits[name] += int((overflow & int(mjw.OverflowType[name]) != 0).sum())
            overflow.zero_()
        env._judge(env._outcome)
        env._begin(env._begin_where_done)
        engine.refresh()
    total = int(histogram.sum())
    share = {str(k): int(v) for k, v in enumerate(histogram.tolist()) if v}
    at = torch.tensor(longest).double()
    return {
        "iterations": share,
        "most iterations": max(longest),
        "slowest env, mean of steps": round(float(at.mean()), 2),
        "steps at limits, share": {name: count / total for name, count in bits.items()},
        **most,
    }


def main():
    args = parser(__doc__.splitlines()[0]).parse_args()
    n, steps = (4, 3) if args.quick else (64, 200)
    rows = {}
    for task in ("lift",) if args.quick else ("lift", "pick_place_can", "pick_place_tray"):
        for driver in ("random", "expert"):
            rows[f"{task}, {driver}"] = measure(task, driver, n, steps)
            print(f"{task}, {driver}: {rows[f'{task}, {driver}']}", flush=True)
    report(
        "solver_tail",
        ours=max(row["most iterations"] for row in rows.values()),
        peer=None,
        ratio=None,
        unit="iterations of the solver in the slowest env",
        packages=("mujoco", "mujoco-warp", "warp-lang"),
        quick=args.quick,
        envs=n,
        control_steps=steps,
        cases=rows,
    )


if __name__ == "__main__":
    main()

"""What robosuite's ToolHang costs beside its Lift: one physics step, and one control step of `env.step`.

Both with the Panda, after a second under random actions, in CPU seconds of one process, in turns.

    python benchmarks/tool_hang.py           # full, writes benchmarks/results/tool_hang.json
    python benchmarks/tool_hang.py --quick   # fewer turns, writes nothing
"""

import statistics
import time

import mujoco
import numpy as np
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

NAMES = ("Lift", "ToolHang")


def cpu_seconds(function, times):
    """CPU seconds of each of several calls."""
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


def main():
    quick = arguments(__doc__.splitlines()[0]).quick
    from caliper.envs.robosuite_env import _make

    rng, envs, rows = np.random.default_rng(0), {}, {name: [] for name in NAMES}
    for name in NAMES:
        envs[name] = _make(name, ("panda",), "osc_pose", 20, {})
        envs[name].reset()
    for _ in range(3 if quick else 9):
        for name, env in envs.items():
            env.reset()
            for _ in range(20):
                env.step(rng.uniform(-1, 1, env.action_dim))
            control = cpu_seconds(lambda env=env: env.step(rng.uniform(-1, 1, env.action_dim)), 20)
            model, data = env.sim.model._model, env.sim.data._data
            contacts, rows_of_constraints = int(data.ncon), int(data.nefc)
            physics = cpu_seconds(lambda model=model, data=data: mujoco.mj_step(model, data), 500)
            rows[name].append((1e6 * physics, 1e3 * control, contacts, rows_of_constraints))
    kinds = ("physics_step_microseconds", "control_step_milliseconds", "contacts", "constraint_rows")
    found = {
        name: {k: round(statistics.median(c), 1) for k, c in zip(kinds, zip(*r, strict=True), strict=True)}
        for name, r in rows.items()
    }
    ours, peer = (found[name][kinds[0]] for name in reversed(NAMES))
    report(
        "tool_hang",
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 2),
        unit="CPU microseconds of a physics step: ToolHang, and Lift as its peer; medians",
        packages=("mujoco", "robosuite"),
        quick=quick,
        environments=found,
    )


if __name__ == "__main__":
    main()

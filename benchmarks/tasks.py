"""What every task costs, and what its script can do: Caliper on a CPU against robosuite's `env.step`.

For each task: CPU seconds to compile its scene; environment steps per CPU second of the physics alone, and
with two 64x64 cameras; the same of robosuite's own environment, if it has one, in turns with ours, so that
other load hurts both; success and length of 100 episodes of the script without noise. What is to be compared
is the ratio of CPU seconds. The script acts in our envs, and robosuite's gets the first one's actions from a
start of its own. Resets are left out of robosuite's time and left in ours.

robosuite draws with OpenGL in software (OSMesa or EGL), see `sim_cpu.py`. The
file is written after each task.

    python benchmarks/tasks.py                    # full, writes benchmarks/results/tasks.json
    python benchmarks/tasks.py --only stack door  # these alone; the other rows stay
    python benchmarks/tasks.py --quick            # one task, under 50 s, writes nothing
"""

import json
import statistics
import sys
import time

import torch
from _common import RESULTS, hardware, parser, report  # type: ignore[import-not-found]  # beside this script
from sim_cpu import CAMERAS, ROOT, SIZE, software_opengl  # type: ignore[import-not-found]

sys.path.insert(0, str(ROOT))  # for the tests' folder

NUM_ENVS = 16


def cpu_seconds(function, *args):
    """CPU seconds of a call, and what it returned."""
    start = time.process_time()
    out = function(*args)
    return time.process_time() - start, out


def make_peer(task, opengl):
    """robosuite's environment, drawn by `opengl` if named; it keeps its model through resets."""
    from tests.oracle import make_oracle, patched_robosuite

    patched_robosuite()
    from robosuite.utils import binding_utils

    images = {}
    if opengl:
        binding_utils._MUJOCO_GL = opengl
        images = {
            "has_offscreen_renderer": True,
            "use_camera_obs": True,
            "camera_names": list(CAMERAS),
            "camera_heights": SIZE,
            "camera_widths": SIZE,
        }
    oracle = make_oracle(task, horizon=1 << 30, ignore_done=True, **images)
    oracle.hard_reset = False
    oracle.reset()
    return oracle


def in_turns(env, oracle, rounds, ours, theirs):
    """Steps per CPU second of our envs and of robosuite's one, round by round.

    Args:
        env: our envs, in which the script acts.
        oracle: robosuite's environment, or None.
        rounds: of turns.
        ours: control steps of all envs a round.
        theirs: control steps of robosuite's env a round.

    Returns:
        Medians of both (None without an oracle) and of the rounds' ratios, and the ratios' range.
    """
    from tests.envs.conftest import clean_expert

    env.reset(seeds=torch.arange(env.num_envs))
    expert, rows = clean_expert(env), []
    for step in range(rounds * ours):
        if step % ours == 0:
            spent, actions = 0.0, []
        action = expert.act()
        actions.append(action[0])
        spent += cpu_seconds(env.step, action)[0]
        if step % ours < ours - 1:
            continue
        row = [ours * env.num_envs / spent, None]
        if oracle is not None:
            oracle.reset()
            spent = sum(cpu_seconds(oracle.step, a.double().numpy())[0] for a in actions[:theirs])
            row[1] = min(theirs, len(actions)) / spent
        rows.append(row)
    mine = statistics.median(r[0] for r in rows)
    if oracle is None:
        return mine, None, None, None
    ratios = [a / b for a, b in rows]
    spread = [round(min(ratios), 1), round(max(ratios), 1)]
    return mine, statistics.median(r[1] for r in rows), statistics.median(ratios), spread


def script(task, episodes, robot="panda"):
    """Share of successes of the script without noise, and the lengths of its successes."""
    from caliper.envs.sim import SimEnv
    from tests.envs.conftest import clean_expert, usual

    n = min(25, episodes)
    env, lengths = SimEnv(task, n, cameras=(), robot=robot, max_diverged=1.0, **usual(task)), []
    for first in range(0, episodes, n):
        env.reset(seeds=first + torch.arange(n))
        expert, running = clean_expert(env), torch.ones(n, dtype=torch.bool)
        for t in range(env.horizon):
            step = env.step(expert.act())
            lengths += [t + 1] * int((running & step.success).sum())
            running &= ~(step.success | step.truncated)
            if not running.any():
                break
    return len(lengths) / episodes, lengths


def measure(task, opengl, quick):
    """One task's row."""
    from caliper.envs.scene.scenes import build
    from caliper.envs.sim import SimEnv
    from caliper.envs.tasks import make_task
    from tests.envs.conftest import usual
    from tests.oracle import ENVIRONMENTS

    compile_seconds, scene = cpu_seconds(build, make_task(task).scene)
    share, lengths = script(task, 25 if quick else 100)
    # robosuite steps at 20 Hz with 7-D actions; so do our envs here, whatever the task's configuration says.
    kind = {"controller": "osc_pose", "control_freq": 20, "horizon": usual(task)["horizon"]}
    row = {
        "compile_cpu_seconds": round(compile_seconds, 1),
        "positions": int(scene.model.nq),
        "control_freq": usual(task)["control_freq"],
        "script_success": share,
        "script_steps_median": statistics.median(lengths) if lengths else None,
        "script_steps_max": max(lengths, default=None),
        "hardware": hardware(),  # of this row: with --only, others may be of another machine
        "opengl": opengl,
    }
    rounds = 2 if quick else 3
    for what, cameras, gl, theirs in (("physics", (), None, 10), ("rendered", CAMERAS, opengl, 6)):
        env = SimEnv(task, NUM_ENVS, cameras=cameras, size=SIZE, threads=1, **kind)
        ask = task in ENVIRONMENTS and (what == "physics" or gl)
        mine, peer, ratio, spread = in_turns(env, make_peer(task, gl) if ask else None, rounds, 10, theirs)
        row[f"{what}_steps_per_cpu_second"] = round(mine)
        row[f"{what}_robosuite"] = peer and round(peer, 1)
        row[f"{what}_ratio"], row[f"{what}_ratio_range"] = ratio and round(ratio, 1), spread
    return row


def main():
    command = parser(__doc__.splitlines()[0])
    command.add_argument("--only", nargs="+", help="tasks to measure; the others' rows stay")
    args = command.parse_args()
    from caliper.envs.tasks import TASKS

    opengl = software_opengl()
    torch.set_num_threads(1)
    names = ["lift"] if args.quick else args.only or list(TASKS)
    path = RESULTS / "tasks.json"
    rows = json.loads(path.read_text())["tasks"] if args.only and path.exists() else {}
    for task in names:
        rows[task] = measure(task, opengl, args.quick)
        ratios = [row["rendered_ratio"] for row in rows.values() if row["rendered_ratio"]]
        report(
            "tasks",
            ours=None,
            peer=f"robosuite's env.step, {opengl}",
            ratio=round(statistics.median(ratios), 1) if ratios else None,
            unit="environment steps per CPU second, two 64x64 cameras: median of the tasks' ratios",
            packages=("mujoco", "mujoco-warp", "robosuite", "torch", "warp-lang"),
            quick=args.quick,
            num_envs=NUM_ENVS,
            tasks=rows,
        )


if __name__ == "__main__":
    main()

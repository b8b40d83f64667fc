"""Environment steps per second with two 64x64 cameras: Caliper's CPU engine against robosuite's `env.step`.

Lift, OSC_POSE at 20 Hz, random actions, agentview and wrist camera. Caliper steps 16 worlds in one process
and draws them with its ray tracer; robosuite steps its one world and draws it with OpenGL in software
(OSMesa or EGL). Both may use every core this process may: they take turns, round by round, so that other
load on the machine hurts both. The headline is steps per second on the clock; steps per CPU second are
reported beside it. Resets are left out of robosuite's time (it recompiles its scene in them) and left in
ours.

    python benchmarks/sim_cpu.py            # full, writes benchmarks/results/sim_cpu.json
    python benchmarks/sim_cpu.py --quick    # under 50 s, writes nothing
"""

import ctypes.util
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

ROOT = Path(__file__).resolve().parents[1]
WORLDS, CAMERAS, SIZE, EPISODE = 16, ("agentview", "robot0_eye_in_hand"), 64, 100


def software_opengl():
    """Chooses MuJoCo's OpenGL, which has to happen before mujoco is imported; exits where there is none."""
    if "MUJOCO_GL" not in os.environ:
        found = [
            gl for gl, library in (("osmesa", "OSMesa"), ("egl", "EGL")) if ctypes.util.find_library(library)
        ]
        if not found:
            sys.exit("robosuite's cameras need OpenGL, which is missing; install: apt-get install libosmesa6")
        os.environ["MUJOCO_GL"] = found[0]
    return os.environ["MUJOCO_GL"]


class Stopwatch:
    """Sums up wall-clock and CPU seconds of the calls it wraps."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __call__(self, function):
        def timed(*args):
            wall, cpu = time.perf_counter(), time.process_time()
            out = function(*args)
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu
            return out

        return timed


def main():
    args = arguments(__doc__.splitlines()[0])
    opengl = software_opengl()
    from caliper.envs.sim import SimEnv

    sys.path.insert(0, str(ROOT))  # for the tests' folder
    from tests.oracle import make_oracle

    env = SimEnv("lift", WORLDS, cameras=CAMERAS, size=SIZE, horizon=EPISODE)
    physics, drawing, ours, peer = (Stopwatch() for _ in range(4))
    renderer = env._renderer(CAMERAS, SIZE)
    env.engine.advance, renderer.render = physics(env.engine.advance), drawing(renderer.render)
    step = ours(env.step)
    oracle = make_oracle(
        "lift",
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=list(CAMERAS),
        camera_heights=SIZE,
        camera_widths=SIZE,
        horizon=1 << 30,
    )
    oracle.reset()
    rng = np.random.default_rng(0)

    def our_actions():
        return torch.as_tensor(rng.uniform(-1, 1, (WORLDS, env.action_dim)), dtype=torch.float32)

    for _ in range(3):  # kernels and shaders compile here
        step(our_actions())
        obs = oracle.step(rng.uniform(-1, 1, 7))[0]
    assert all(obs[f"{camera}_image"].shape == (SIZE, SIZE, 3) for camera in CAMERAS)
    for watch in (physics, drawing, ours, peer):
        watch.wall = watch.cpu = 0.0
    peer_step = peer(oracle.step)
    rounds, our_steps, peer_steps = (6, 15, 12) if args.quick else (20, 30, 25)
    for r in range(rounds):
        for _ in range(our_steps):
            step(our_actions())
        for _ in range(peer_steps):
            peer_step(rng.uniform(-1, 1, 7))
        if (r + 1) * peer_steps % EPISODE < peer_steps:
            oracle.reset()
    n, m = rounds * our_steps * WORLDS, rounds * peer_steps
    rest = Stopwatch()
    rest.wall, rest.cpu = ours.wall - physics.wall - drawing.wall, ours.cpu - physics.cpu - drawing.cpu
    print(f"{'per environment step':28}{'wall ms':>10}{'cpu ms':>10}")
    table = {
        "physics and controller": physics,
        "rendering": drawing,
        "everything else": rest,
        "Caliper, all": ours,
    }
    rows = {name: (1e3 * w.wall / n, 1e3 * w.cpu / n) for name, w in table.items()}
    rows[f"robosuite, all ({opengl})"] = (1e3 * peer.wall / m, 1e3 * peer.cpu / m)
    for name, (wall, cpu) in rows.items():
        print(f"{name:28}{wall:10.3f}{cpu:10.3f}")
    report(
        "sim_cpu",
        ours=round(n / ours.wall, 1),
        peer=round(m / peer.wall, 2),
        ratio=round(n / ours.wall / (m / peer.wall), 2),
        unit=f"environment steps per second, two {SIZE}x{SIZE} cameras",
        packages=("mujoco", "mujoco-warp", "warp-lang", "robosuite", "torch", "numpy"),
        quick=args.quick,
        cpu_ratio=round(n / ours.cpu / (m / peer.cpu), 2),
        opengl=opengl,
        milliseconds={name: {"wall": round(w, 3), "cpu": round(c, 3)} for name, (w, c) in rows.items()},
    )


if __name__ == "__main__":
    main()

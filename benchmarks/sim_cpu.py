"""Environment steps per CPU second with two 64x64 cameras: Caliper on a CPU against robosuite's `env.step`.

Lift, OSC_POSE at 20 Hz, random actions, agentview and wrist camera. Caliper steps 16 envs in one process
and draws them with its rasteriser; robosuite steps its one env and draws it with OpenGL in software
(OSMesa or EGL). Both may use every core this process may. They take turns, round by round, so that other load
on the machine hurts both; the headline is the median of the rounds' ratios per CPU second, which neighbours
move least, with the range and the ratio on the clock beside it. Resets are left out of robosuite's time and
left in ours.

After every round both sides' images are looked at: robosuite's last ones must show its state, as Caliper
draws it, and Caliper's must be those of its envs. For robosuite builds a new OpenGL context at every reset,
and frees the old one whenever Python collects it, with the new one current: then the new one's textures and
buffers are deleted, and from there on it draws one colour, in a tenth of the time, without a word. So here it
keeps its model, and its context, through resets (`hard_reset=False`).

    python benchmarks/sim_cpu.py            # full, writes benchmarks/results/sim_cpu.json
    python benchmarks/sim_cpu.py --quick    # under 50 s, writes nothing
"""

import ctypes.util
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

ROOT = Path(__file__).resolve().parents[1]
NUM_ENVS, CAMERAS, SIZE, EPISODE = 16, ("agentview", "robot0_eye_in_hand"), 64, 100
ALIKE = 0.8  # correlation of both sides' images of one state; of two cameras' it is about 0.2


def software_opengl():
    """MuJoCo's OpenGL for robosuite; exits where there is none."""
    if "MUJOCO_GL" in os.environ:
        return os.environ["MUJOCO_GL"]
    found = [
        gl for gl, library in (("osmesa", "OSMesa"), ("egl", "EGL")) if ctypes.util.find_library(library)
    ]
    if not found:
        sys.exit("robosuite's cameras need OpenGL, which is missing; install: apt-get install libosmesa6")
    return found[0]


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

    def take(self):
        """Wall-clock and CPU seconds since it was last asked."""
        seconds, self.wall, self.cpu = np.array([self.wall, self.cpu]), 0.0, 0.0
        return seconds


def likeness(a, b):
    """Correlation of two images (h, w, 3)."""
    return float(np.corrcoef(a.astype(float).ravel(), b.astype(float).ravel())[0, 1])


def show_the_same(env, step, oracle, obs):
    """Looks at our step's images of our envs and robosuite's of its state; how alike the latter are."""
    from tests.oracle import joint_state

    assert torch.equal(step.obs.pixels, env.observe().pixels), "the images of a step are not of its envs"
    assert len(torch.unique(step.obs.pixels.flatten(1), dim=0)) == NUM_ENVS, "envs have the same image"
    before = env.state_dict()
    qpos, qvel = joint_state(oracle, env.engine.model)
    env.set_state(torch.as_tensor(np.concatenate([[0.0], qpos, qvel]))[None])
    ours = env.observe().pixels[0].permute(0, 2, 3, 1).numpy()  # v h w c
    env.load_state_dict(before)
    alike = [likeness(obs[f"{name}_image"][::-1], ours[v]) for v, name in enumerate(CAMERAS)]
    assert min(alike) > ALIKE, f"robosuite's images do not show its state: correlations of {alike}"
    return min(alike)


def make_peer(opengl):
    """robosuite's environment; it keeps its model, and its OpenGL context, when it is reset."""
    sys.path.insert(0, str(ROOT))  # for the tests' folder
    from tests.oracle import make_oracle, patched_robosuite

    patched_robosuite()
    from robosuite.utils import binding_utils

    binding_utils._MUJOCO_GL = opengl  # read from the environment at its import, which Caliper keeps clean
    oracle = make_oracle(
        "lift",
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=list(CAMERAS),
        camera_heights=SIZE,
        camera_widths=SIZE,
        horizon=1 << 30,
    )
    oracle.hard_reset = False
    oracle.reset()
    return oracle


def main():
    args = arguments(__doc__.splitlines()[0])
    opengl = software_opengl()
    from caliper.envs.sim import SimEnv

    env = SimEnv("lift", NUM_ENVS, cameras=CAMERAS, size=SIZE, horizon=EPISODE)
    oracle = make_peer(opengl)
    rng = np.random.default_rng(0)

    def our_actions():
        return torch.as_tensor(rng.uniform(-1, 1, (NUM_ENVS, env.action_dim)), dtype=torch.float32)

    for _ in range(3):  # kernels and shaders compile here
        env.step(our_actions())
        oracle.step(rng.uniform(-1, 1, 7))
    physics, drawing, ours, peer = (Stopwatch() for _ in range(4))
    renderer = env._renderer(CAMERAS, SIZE)
    env.engine.advance, renderer.render = physics(env.engine.advance), drawing(renderer.render)
    our_step, peer_step = ours(env.step), peer(oracle.step)
    rounds, our_steps, peer_steps = (5, 40, 20) if args.quick else (9, 100, 50)
    seconds, alike = (
        [],
        [],
    )  # per environment step: rounds, (physics, drawing, Caliper, robosuite), (wall, CPU)
    for r in range(rounds):
        for _ in range(our_steps):
            step = our_step(our_actions())
        for _ in range(peer_steps):
            obs = peer_step(rng.uniform(-1, 1, 7))[0]
        steps = np.array([our_steps * NUM_ENVS] * 3 + [peer_steps])[:, None]
        seconds.append(np.stack([watch.take() for watch in (physics, drawing, ours, peer)]) / steps)
        alike.append(show_the_same(env, step, oracle, obs))
        for watch in (physics, drawing):
            watch.take()  # of the look at the images
        if (r + 1) * peer_steps % EPISODE < peer_steps:
            oracle.reset()
    each = np.array(seconds)
    typical = np.median(each, 0)
    names = ("physics and controller", "rendering", "Caliper, all", f"robosuite, all ({opengl})")
    rows = dict(zip(names, 1e3 * typical, strict=True))
    rows["everything else"] = rows[names[2]] - rows[names[0]] - rows[names[1]]
    print(f"{'per environment step':28}{'wall ms':>10}{'cpu ms':>10}")
    for name, (wall, cpu) in rows.items():
        print(f"{name:28}{wall:10.3f}{cpu:10.3f}")
    ratios = each[:, 3] / each[:, 2]  # rounds, (wall, CPU)

    def spread(values):
        return {
            "median": round(statistics.median(values), 2),
            "from": round(min(values), 2),
            "to": round(max(values), 2),
        }

    report(
        "sim_cpu",
        ours=round(1 / typical[2, 1], 1),
        peer=round(1 / typical[3, 1], 2),
        ratio=round(float(np.median(ratios[:, 1])), 2),
        unit=f"environment steps per CPU second, two {SIZE}x{SIZE} cameras",
        packages=("mujoco", "robosuite", "torch", "numpy", "numba"),
        quick=args.quick,
        rounds=rounds,
        cpu_ratio=spread(ratios[:, 1].tolist()),
        clock_ratio=spread(ratios[:, 0].tolist()),
        steps_per_second_on_the_clock={
            "ours": round(1 / typical[2, 0], 1),
            "peer": round(1 / typical[3, 0], 2),
        },
        opengl=opengl,
        likeness=round(min(alike), 3),
        milliseconds={name: {"wall": round(w, 3), "cpu": round(c, 3)} for name, (w, c) in rows.items()},
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()

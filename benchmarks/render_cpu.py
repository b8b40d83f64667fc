"""CPU milliseconds per image of every task: Caliper's rasteriser against its ray tracer, on one thread.

The ray tracer, MuJoCo Warp's, is what draws on a GPU, drew on a CPU before, and what the rasteriser's pixels
are held to: beside the times stands the share of pixels within 2 of 255, by the worst round. Both draw the
same states of four envs, two cameras each, in turns, and a round whose images do not agree is an error.
Besides: what a second thread gains, and `caliper replay`, states of a dataset file to a file of images.

    python benchmarks/render_cpu.py            # full, writes benchmarks/results/render_cpu.json
    python benchmarks/render_cpu.py --quick    # under 50 s, writes nothing
"""

import contextlib
import io
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.config.build import collect_seeds, dataset_meta
from caliper.config.compose import compose
from caliper.data.dataset import Episode
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.envs.render.raster import Rasteriser
from caliper.envs.render.trace import RayTracer
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import TASKS
from caliper.machine import cores
from caliper.rollout.replay import rendered
from caliper.tools.replay import replay_file

CAMERAS = ("agentview", "robot0_eye_in_hand")
SIZES = (
    (64, 1),
    (84, 1),
    (128, 1),
    (256, 1),
    (64, 2),
    (84, 2),
    (128, 2),
    (256, 2),
)  # pixels, samples an axis
NUM_ENVS, EPISODES, LENGTH, REPLAY = 4, 64, 50, ("pick_place_can", 64)  # what is replayed


def milliseconds(draw, count):
    """CPU time of an image, and the images."""
    start = time.process_time()
    images = draw()
    return 1e3 * (time.process_time() - start) / count, images


def wander(env, steps, seed=0):
    """States (steps, n, s) that random actions lead to."""
    generator = torch.Generator().manual_seed(seed)
    states = []
    for _ in range(steps):
        env.step(2 * torch.rand(env.num_envs, env.action_dim, generator=generator) - 1)
        states.append(env.get_state())
    return torch.stack(states)


def compare(env, states, size, antialias):
    """Median milliseconds per image of both renderers, and the worst agreement."""
    kinds = {"tracer": RayTracer, "rasteriser": Rasteriser}
    renderers = {name: kind(env.engine, CAMERAS, size, 1, antialias) for name, kind in kinds.items()}
    for _ in range(2):  # the tracer's first draws load and record its kernels
        for renderer in renderers.values():
            renderer.render()
    times, agreement = {name: [] for name in kinds}, []
    for state in states:
        env.set_state(state)
        drawn = {}
        for name, renderer in renderers.items():
            taken, drawn[name] = milliseconds(renderer.render, len(CAMERAS) * env.num_envs)
            times[name].append(taken)
        apart = (drawn["tracer"].int() - drawn["rasteriser"].int()).abs().amax(2)
        agreement.append(float((apart <= 2).float().mean()))
        assert agreement[-1] > 0.999, f"{env.task.name}, {size}: only {agreement[-1]} of the pixels agree"
    row = {name: round(statistics.median(taken), 3) for name, taken in times.items()}
    return row | {"ratio": round(row["tracer"] / row["rasteriser"], 1), "agreement": round(min(agreement), 6)}


def second_thread(rounds):
    """What a second thread gains on the clock and costs in CPU time, 16 envs; None on one core.

    On the clock by the fastest of five: other work on the machine takes the second core from it at times.
    """
    if cores() < 2:
        return None
    env = SimEnv("pick_place_can", 16, cameras=())
    renderers = [Rasteriser(env.engine, CAMERAS, 64, threads) for threads in (1, 2)]
    images = [renderer.render() for renderer in renderers]
    gains, costs = [], []
    for state in wander(env, rounds):
        env.set_state(state)
        clock, cpu = ([math.inf] * 2, [0.0] * 2)
        for _ in range(5):
            for i, renderer in enumerate(renderers):
                start = time.perf_counter(), time.process_time()
                images[i] = renderer.render()
                clock[i] = min(clock[i], time.perf_counter() - start[0])
                cpu[i] += time.process_time() - start[1]
        assert torch.equal(*images)
        gains.append(clock[0] / clock[1])
        costs.append(cpu[1] / cpu[0])
    spread = {"median": statistics.median(gains), "from": min(gains), "to": max(gains)}
    return {
        "times_as_fast_on_the_clock": {name: round(x, 2) for name, x in spread.items()},
        "times_the_cpu_time": round(statistics.median(costs), 2),
    }


def replayed(episodes):
    """Images per second of recorded states: drawn, per CPU second; by `caliper replay`, on the clock."""
    task, size = REPLAY
    config = compose([f"task={task}"])
    env = SimEnv(task, episodes, cameras=(), horizon=LENGTH + 1)
    first = env.get_state()[None]
    states = torch.cat([first, wander(env, LENGTH)]).transpose(0, 1).numpy()  # n, t + 1, s
    nothing = torch.zeros(LENGTH, env.action_dim).numpy()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "states.hdf5"
        with DatasetWriter(source, dataset_meta(config)) as writer:
            for i, seed in zip(range(episodes), collect_seeds(config), strict=False):
                rewards = nothing[:, 0]
                writer.add(Episode(states[i, :-1], states[i, -1], nothing, rewards, False, False, seed, 0.0))
        dataset, env = read_dataset(source), SimEnv(task, 16, cameras=CAMERAS, size=size)
        start = time.process_time()
        frames = sum(len(obs) for _, obs in rendered(env, dataset))
        drawn = frames * len(CAMERAS) / (time.process_time() - start)
        assert frames == dataset.num_frames
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            replay_file(source, None, [f"task.size={size}"])
    written = int(said.getvalue().split(", ")[1].split()[0])
    rates = {"drawn_per_cpu_second": round(drawn), "by_the_verb_per_second_on_the_clock": written}
    return {"task": task, "size": size, "images": frames * len(CAMERAS), **rates}


def main():
    args = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    rows = {}
    for task in ("lift",) if args.quick else TASKS:
        env = SimEnv(task, NUM_ENVS, cameras=())
        states = wander(env, 3 if args.quick else 9)
        for size, antialias in ((64, 1), (256, 2)) if args.quick else SIZES:
            rows[f"{task}, {size} px, {antialias}x{antialias}"] = row = compare(env, states, size, antialias)
            print(f"{task:18}{size:4} px {antialias}x{antialias}  {row}", flush=True)
    threads = second_thread(5 if args.quick else 15)
    replay = replayed(4 if args.quick else EPISODES)
    headline = rows["lift, 64 px, 1x1"]
    report(
        "render_cpu",
        ours=headline["rasteriser"],
        peer=headline["tracer"],
        ratio=headline["ratio"],
        unit="CPU milliseconds per 64x64 image of lift, one thread (smaller is better)",
        packages=("mujoco", "mujoco-warp", "warp-lang", "numba", "numpy", "torch"),
        quick=args.quick,
        images=rows,
        second_thread=threads,
        replay=replay,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()

"""Where the demo's time goes: collecting, replay, updates, env steps, evaluation, film and report.

`preset=pick_place_tray_demo` from nothing to its report, once with the rasteriser and once with the ray
tracer that drew on CPUs before it, one after the other in one process. Each part's seconds on the clock and
of CPU; what belongs to none (starting, checkpoints, metrics) is "everything else". The success of both runs
stands beside the time, for their images differ in a few pixels in a hundred thousand.

    python benchmarks/demo_parts.py            # full, writes benchmarks/results/demo_parts.json; half an hour
    python benchmarks/demo_parts.py --quick    # a hundredth of the work, about a minute, writes nothing
"""

import os
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, chdir
from pathlib import Path
from unittest.mock import patch

from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.analysis.run_data import read_run
from caliper.config.compose import compose
from caliper.envs import drawn
from caliper.envs.render.raster import Rasteriser
from caliper.envs.render.trace import RayTracer
from caliper.training import data, run, trainer
from caliper.training.update import EagerLearner

PRESET = "pick_place_tray_demo"
QUICK = [
    "data.episodes=8",
    "offline.bc_updates=10",
    "offline.updates=10",
    "offline.eval_every=10",
    "online.env_steps=40",
    "online.eval_every=40",
    "evaluation.episodes=4",
    "evaluation.final_episodes=4",
    "evaluation.num_envs=4",
    "video.episodes=1",
    "agent.actor_start=5",
]
PARTS = {
    "collect": (data, "collect"),
    "replay": (run, "load_data"),
    "cloning updates": (EagerLearner, "bc_update"),
    "updates": (EagerLearner, "update"),
    "env steps": (trainer.Trainer, "_act"),
    "evaluation": (trainer, "evaluate"),
    "film": (run, "film"),
    "report": (run, "write_report"),
}
RENDERERS = {"rasteriser": Rasteriser, "ray tracer": RayTracer}


def timed(parts, name, function):
    def wrapped(*args, **kwargs):
        wall, cpu = time.perf_counter(), time.process_time()
        out = function(*args, **kwargs)
        part = parts[name]
        part["clock_s"] += time.perf_counter() - wall
        part["cpu_s"] += time.process_time() - cpu
        part["calls"] += 1
        return out

    return wrapped


def demo(renderer, words, folder):
    """The demo's parts and its successes (offline, online), drawn by a renderer."""
    parts = defaultdict(lambda: {"clock_s": 0.0, "cpu_s": 0.0, "calls": 0})
    with ExitStack() as stack:
        stack.enter_context(patch.object(drawn, "make_renderer", RENDERERS[renderer]))
        for name, (home, attribute) in PARTS.items():
            stack.enter_context(patch.object(home, attribute, timed(parts, name, getattr(home, attribute))))
        config = compose([f"preset={PRESET}", f"run_dir={folder / 'run'}", *words])
        timed(parts, "all", run.train)(config)
    whole = parts["all"]
    parts["everything else"] = {
        key: whole[key] - sum(part[key] for name, part in parts.items() if name != "all")
        for key in ("clock_s", "cpu_s")
    }
    return {name: {key: round(value, 2) for key, value in part.items()} for name, part in parts.items()}


def success(folder):
    """Of the last evaluation of each phase."""
    done = read_run(folder)
    return {phase: done.phase(phase)[-1].success_once for phase in ("offline", "online")}


def main():
    args = arguments(__doc__.splitlines()[0])
    parts, solved = {}, {}
    with tempfile.TemporaryDirectory() as place:
        for renderer in RENDERERS:
            folder = Path(place) / renderer.replace(" ", "_")
            folder.mkdir()
            with chdir(folder):  # where the dataset goes that each collects
                parts[renderer] = demo(renderer, QUICK if args.quick else [], folder)
            solved[renderer] = success(folder / "run")
    columns = [f"{renderer}, {clock}" for renderer in RENDERERS for clock in ("clock s", "CPU s")]
    print(f"{'':18}" + "".join(f"{column:>22}" for column in columns))
    for name in (*PARTS, "everything else", "all"):
        cells = (parts[r].get(name, {}).get(key, 0.0) for r in RENDERERS for key in ("clock_s", "cpu_s"))
        print(f"{name:18}" + "".join(f"{cell:22.1f}" for cell in cells))
    ours, peer = (parts[renderer]["all"]["cpu_s"] for renderer in RENDERERS)
    report(
        "demo_parts",
        ours=ours,
        peer=peer,
        ratio=round(peer / ours, 2),
        unit="CPU seconds of the whole demo; beside it with the ray tracer (smaller is better)",
        packages=("mujoco", "mujoco-warp", "numba", "torch"),
        quick=args.quick,
        parts=parts,
        success=solved,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()

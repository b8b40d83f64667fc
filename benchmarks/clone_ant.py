"""How far AntMaze's walker gets, and a clone of its walks.

    caliper collect preset=antmaze_cpu data.path=fixed
    python benchmarks/clone_ant.py fixed

The walker, with the noise that it is recorded with, in each maze; then Caliper's clone (agent=bc, from the
state, unchanged and normalised) of each folder of walks in the U, without noise: the share of the actions'
variance that it explains in the last walks, which it does not learn from, and how far it gets after each
eighth of its updates. Walks lead between any two places, or from the start to the goal of the task, from one
end of the maze to the other.
"""

from pathlib import Path

import numpy as np
import torch
from _common import parser, report  # type: ignore[import-not-found]  # beside this script

from caliper.agents import build_agent
from caliper.config.compose import compose
from caliper.data.formats.minari import read_minari
from caliper.encoders import normalizers
from caliper.envs.gymnasium_env import GymnasiumEnv
from caliper.envs.scripts.ant_maze import Maze, observed, planner, walks
from caliper.types import Batch, Obs, ObsSpec

MAZES = ("antmaze", "antmaze_medium", "antmaze_large")
NOISE, FIRST = 0.2, 10**6  # of the recorded actions; the first seed, which no recorded walk has
AGENT = {"name": "bc", "actor_hidden": [256, 256]}
BATCH, UNSEEN = 256, 0.05  # of the walks, at the end


class Course:
    """A task's maze, and walks through it.

    Attributes:
        horizon: of the task, steps.
    """

    def __init__(self, task):
        config = compose([f"task={task}"]).task
        env = GymnasiumEnv(config.env_id, 1, config.kwargs).envs[0]
        self.model, self.maze, self.horizon = env.model, Maze(env.maze), config.horizon

    def success(self, act, noise, n):
        """Share of n walks that reach their goal: {"anywhere": .., "end to end": ..}."""
        return {
            name: float(np.mean([walk.success for walk in self.walks(act, noise, n, fixed)]))
            for name, fixed in (("anywhere", False), ("end to end", True))
        }

    def walks(self, act, noise, n, fixed):
        """n walks, all side by side."""
        seeds = range(FIRST, FIRST + n)
        return walks(self.model, self.maze, act, seeds, np.full(n, noise), self.horizon, n, 1, fixed)


def as_obs(flat):
    """Observations (b, p) as agents take them."""
    state = torch.as_tensor(flat, dtype=torch.float32)
    return Obs(torch.zeros(len(state), 0, 3, 1, 1, dtype=torch.uint8), state)


def clone(folder, normalize, course, updates, n):
    """The clone's figures: of its walks, and after each eighth of its updates."""
    found = read_minari(folder).episodes
    cut = round(len(found) * (1 - UNSEEN))
    seen, unseen = (
        [
            torch.from_numpy(np.concatenate(part))
            for part in ([e.obs[:-1] for e in es], [e.actions for e in es])
        ]
        for es in (found[:cut], found[cut:])
    )
    size, width = seen[0].shape
    encoder = {"name": "state", "normalize": normalize}
    agent = build_agent(AGENT, encoder, ObsSpec((), 1, width), seen[1].shape[1], "cpu", 0)
    for part in normalizers(agent):
        part.fit(seen[0])
    draw, curve = torch.Generator().manual_seed(0), []

    def act(*state):
        return agent.act(as_obs(observed(*state)), deterministic=True).double().numpy()

    for done in range(1, updates + 1):
        pick = torch.randint(size, (BATCH,), generator=draw)
        obs, zeros = as_obs(seen[0][pick]), torch.zeros(BATCH)
        agent.update(Batch(obs, seen[1][pick], zeros, obs, zeros, zeros))
        if done % max(updates // 8, 1) == 0:
            error = agent.act(as_obs(unseen[0]), deterministic=True) - unseen[1]
            spread = unseen[1] - unseen[1].mean(0)
            explained = 1 - float(error.square().mean() / spread.square().mean())
            curve.append({"updates": done, "R2": explained, **course.success(act, 0.0, n)})
            print(curve[-1], flush=True)
    return {"walks": cut, "transitions": size, "unseen walks": len(found) - cut, "curve": curve}


def main():
    """Prints and writes both."""
    words = parser(__doc__)
    words.add_argument("walks", type=Path, nargs="+", help="folders of Minari datasets")
    words.add_argument("--updates", type=int, default=60_000)
    words.add_argument("--n", type=int, default=50, help="walks of each kind")
    args = words.parse_args()
    torch.set_num_threads(1)
    n, updates = (4, 40) if args.quick else (args.n, args.updates)
    courses, walker = {name: Course(name) for name in MAZES}, {}
    for name, course in courses.items():
        walker[name] = course.success(planner(course.maze), NOISE, n)
        print(name, walker[name], flush=True)
    clones = {
        folder.name + ", normalized" * normalize: clone(folder, normalize, courses["antmaze"], updates, n)
        for folder in args.walks
        for normalize in (False, True)
    }
    report(
        "clone_ant",
        {"walker": walker, "clone": clones},
        None,
        None,
        f"share of {n} walks",
        ["caliper-rl", "mujoco", "gymnasium-robotics", "torch"],
        args.quick,
    )


if __name__ == "__main__":
    main()

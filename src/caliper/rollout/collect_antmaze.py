"""`caliper collect task=antmaze...`: an ant that follows a planner's waypoints through the maze."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caliper.config.build import collect_knobs, collect_seeds
from caliper.config.schema import RunConfig
from caliper.data.formats.minari import Recording
from caliper.data.formats.minari_writer import write_observations
from caliper.envs.gymnasium_env import GymnasiumEnv
from caliper.envs.scripts.ant_maze import Maze, planner, walks
from caliper.machine import cores
from caliper.utils.files import new_folder
from caliper.utils.progress import bar


def collect_antmaze(config: RunConfig, path: Path) -> Path:
    """Writes the ant's episodes as a Minari dataset; each draws its action noise from `data.mixture`.

    Raises:
        CaliperError: the dataset cannot be written.
    """
    task, data, seeds = config.task, config.data, collect_seeds(config)
    inner = GymnasiumEnv(task.env_id or "", 1, task.kwargs).envs[0]
    noise, _ = collect_knobs(config)
    horizon, threads = config.recorded_horizon, config.threads or cores()
    maze, fixed = Maze(inner.maze), data.kind == "fixed"
    act = planner(maze)
    found = walks(inner.model, maze, act, seeds, noise, horizon, data.num_envs, threads, fixed)

    def episodes() -> Iterator[Recording]:
        with bar(len(seeds), "collect", "episode", leave=False) as shown:
            for walk in found:
                reached = np.zeros(len(walk.actions), bool)
                reached[-1] = walk.success
                yield Recording(walk.obs, walk.actions, reached.astype(np.float32), reached)
                shown.update()

    with new_folder(path, "the dataset") as folder:
        where = "from the task's start to its goal" if fixed else "between any two places"
        write_observations(folder, task.env_id or "", task.name, episodes(), f"{len(seeds)} walks {where}")
    return path

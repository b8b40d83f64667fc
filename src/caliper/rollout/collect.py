"""`caliper collect`: episodes of the scripted expert, of mixed quality, as states and actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caliper.config.build import collect_knobs, collect_seeds, dataset_meta, make_env, no_expert
from caliper.config.schema import RunConfig
from caliper.config.validate import check_task
from caliper.data.dataset import Episode
from caliper.data.formats.robomimic import DatasetWriter
from caliper.envs.scripts.experts import SPOKEN, Expert
from caliper.errors import CaliperError
from caliper.rollout.collect_observed import collect_observed
from caliper.rollout.episodes import Trajectory, run_episodes
from caliper.types import Obs


def collect(config: RunConfig, path: Path, overwrite: bool = True) -> Path:
    """Lets the expert act and writes what it did; an existing file is replaced only by a whole new one.

    Without `overwrite` one that another process has made meanwhile stays.

    Every episode draws its action noise and its grasp error from `data.mixture`, in any number of envs. One
    whose physics blew up is left out, which is said.

    Returns:
        The file; of an environment of Gymnasium, the folder.

    Raises:
        CaliperError: the configuration will not do, or the file cannot be written.
    """
    check_task(config)
    if config.task.env_id is not None:
        return collect_observed(config, path)
    if config.task.env is not None:
        raise CaliperError(no_expert(config))
    if config.task.controller not in SPOKEN:
        raise CaliperError(
            f"task.controller={config.task.controller} is not what the scripted expert speaks; collect with "
            f"one of: {', '.join(SPOKEN)}, or name recorded data with data.path=FILE"
        )
    data, seeds = config.data, collect_seeds(config)
    first = seeds[0]
    env = make_env(
        config, min(data.num_envs, data.episodes), False, config.recorded_horizon, config.recorded_start
    )
    noise, bias = collect_knobs(config)
    expert = Expert(env, torch.zeros(0), torch.zeros(0))  # until a round starts

    def started(chunk: list[int]) -> None:
        nonlocal expert
        rows = np.array(chunk) - first
        knobs = torch.as_tensor(noise[rows]), torch.as_tensor(bias[rows])
        expert = Expert(env, *knobs, data.stage, data.operator)

    def record(_: Obs, action: Tensor) -> Tensor:
        return torch.cat([env.get_state(), action.double()], dim=1)

    with DatasetWriter(path, dataset_meta(config), overwrite) as writer:
        for trajectory in run_episodes(
            env, seeds, lambda _: expert.act(), record, "collect", started, lambda: expert.finished
        ):
            if trajectory.diverged:
                print(f"collect: the episode of seed {trajectory.seed} is left out: its physics blew up")
                continue
            writer.add(_episode(trajectory, env.state_dim, float(noise[trajectory.seed - first])))
    return path


def _episode(trajectory: Trajectory, state_dim: int, noise: float) -> Episode:
    rows = torch.stack(trajectory.records).numpy()  # (t, s + a)
    rewards = np.zeros(len(rows), np.float32)
    rewards[-1] = float(trajectory.success)
    return Episode(
        states=rows[:, :state_dim],
        final_state=trajectory.final_state.numpy(),
        actions=rows[:, state_dim:].astype(np.float32),
        rewards=rewards,
        terminated=trajectory.success,
        success=trajectory.success,
        seed=trajectory.seed,
        noise=noise,
    )

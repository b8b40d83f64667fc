"""Videos of a policy at work, from a camera of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent
from caliper.config.build import eval_seeds, make_env
from caliper.config.schema import RunConfig
from caliper.rollout.episodes import Plan, run_episodes
from caliper.rollout.video import grid, write_video
from caliper.types import Obs

WORLDS = 4  # filmed side by side; pictures for people cost far more than the policy's


def film(agent: Agent, config: RunConfig, folder: Path, name: str = "rollouts") -> Path:
    """Films the greedy policy on the first evaluation seeds and tiles the episodes into one H.264 video.

    Args:
        agent: the policy.
        config: the run's configuration; its `video` section says how many episodes, which camera, which size.
        folder: the run folder; the video goes to videos/<name>.mp4.
        name: of the file.

    Raises:
        CaliperError: no such camera, or the video cannot be written.
    """
    video = config.video
    env = make_env(config, min(WORLDS, video.episodes))

    def record(_: Obs, __: Tensor) -> Tensor:
        return env.render((video.camera,), video.size)[:, 0].permute(0, 2, 3, 1)  # n h w c

    plan = Plan(env.num_envs, agent.config.chunk, env.action_dim, env.device)

    def act(obs: Obs) -> Tensor:
        return plan.next(agent.act(obs, deterministic=True))

    def started(_: list[int]) -> None:
        plan.clear()

    runs = list(run_episodes(env, eval_seeds(config, video.episodes), act, record, "film", started))
    clips = [np.asarray(torch.stack(run.records)) for run in runs]
    captions = [f"seed {run.seed}: {'solved' if run.success else 'not solved'}" for run in runs]
    tiles = grid(clips, [run.success for run in runs], captions)
    return write_video(folder / "videos" / f"{name}.mp4", tiles, config.task.control_freq)

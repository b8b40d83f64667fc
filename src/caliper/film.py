"""Videos of a policy at work, from a camera of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent
from caliper.config import RunConfig
from caliper.rollout import run_episodes
from caliper.types import Obs
from caliper.video import grid, write_video
from caliper.worlds import EVAL_SEEDS, make_env

WORLDS = 4  # filmed side by side; pictures for people cost far more than the policy's


def film(
    agent: Agent,
    config: RunConfig,
    folder: Path,
    episodes: int | None = None,
    camera: str | None = None,
    size: int | None = None,
    name: str = "rollouts",
) -> Path:
    """Films the greedy policy on the first evaluation seeds and tiles the episodes into one H.264 video.

    Args:
        agent: the policy.
        config: the run's configuration; its `video` section gives what is left out.
        folder: the run folder; the video goes to videos/<name>.mp4.
        episodes: how many.
        camera: any camera of the scene.
        size: side of each tile, pixels.
        name: of the file.

    Raises:
        CaliperError: no such camera, or the video cannot be written.
    """
    video = config.video
    count, camera, size = episodes or video.episodes, camera or video.camera, size or video.size
    env = make_env(config, min(WORLDS, count))

    def record(_: Obs, __: Tensor) -> Tensor:
        return env.render((camera,), size)[:, 0].permute(0, 2, 3, 1)  # n h w c

    seeds = list(range(EVAL_SEEDS + config.evaluation.seed, EVAL_SEEDS + config.evaluation.seed + count))
    runs = list(run_episodes(env, seeds, lambda obs: agent.act(obs, deterministic=True), record, "film"))
    clips = [np.asarray(torch.stack(run.records)) for run in runs]
    captions = [f"seed {run.seed}: {'solved' if run.success else 'not solved'}" for run in runs]
    path = folder / "videos" / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, grid(clips, [run.success for run in runs], captions), config.task.control_freq)
    return path

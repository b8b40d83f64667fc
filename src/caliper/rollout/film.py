"""Videos of episodes, from a camera of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from caliper.agents import Agent
from caliper.config.build import eval_seeds, make_envs
from caliper.config.schema import RunConfig
from caliper.envs.base import VectorEnv
from caliper.rollout.episodes import ActionQueue, run_episodes
from caliper.rollout.video import Frames, grid, write_video
from caliper.types import Obs
from caliper.utils.early import stop_if_told
from caliper.utils.progress import bar

ENVS = 16  # at most so many episodes are played, and images drawn, side by side
HOLD_SECONDS = 0.5  # how long the last images stay


def film(agent: Agent, config: RunConfig, folder: Path, name: str = "rollouts") -> Path:
    """Films the greedy policy on the first evaluation seeds and tiles the episodes into one H.264 video.

    The episodes are played first and drawn from their states afterwards, the state that the last action led
    to included: a tile marked "solved" ends on the solution.

    Args:
        agent: the policy.
        config: the run's configuration; its `video` section says how many episodes, which camera, which size.
        folder: the run folder; the video goes to videos/<name>.mp4.
        name: of the file.

    Raises:
        CaliperError: no such camera, or the video cannot be written.
    """
    video, freq = config.video, config.task.control_freq
    env = make_envs(config, min(ENVS, video.episodes))
    queue = ActionQueue(env.num_envs, agent.config.chunk, env.action_dim, env.device)

    def act(obs: Obs) -> Tensor:
        return queue.next(agent.act(obs, deterministic=True))

    def record(_: Obs, __: Tensor) -> Tensor:
        return env.get_state()

    def started(_: list[int]) -> None:
        queue.clear()

    episodes = list(run_episodes(env, eval_seeds(config, video.episodes), act, record, "film", started))
    states = [torch.stack([*e.records, e.final_state]) for e in episodes]  # (t + 1, s) each
    clips = draw_states(env, states, video.camera, video.size)
    captions = [f"seed {e.seed}: {'solved' if e.success else 'not solved'}" for e in episodes]
    tiles = grid(clips, [e.success for e in episodes], captions, hold=round(HOLD_SECONDS * freq))
    return write_video(folder / "videos" / f"{name}.mp4", tiles, freq)


def draw_states(env: VectorEnv, episodes: list[Tensor], camera: str, size: int) -> list[Frames]:
    """Images of the states of episodes, (t, s) each, as clips, uint8 (t, size, size, 3) each.

    The envs are left in the last states: reset them before the next step.
    """
    states = torch.cat(episodes).to(env.device)
    images = []
    with bar(len(states), "draw", "frame", leave=False) as shown:
        # Of all episodes together, so that every batch is full.
        for batch in torch.split(states, env.num_envs):
            stop_if_told()
            env.set_state(batch)
            images.append(env.render((camera,), size)[: len(batch), 0].cpu())
            shown.update(len(batch))
    frames = rearrange(torch.cat(images), "t c h w -> t h w c")
    return [np.asarray(clip) for clip in torch.split(frames, [len(e) for e in episodes])]

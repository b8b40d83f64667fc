"""Recorded states into pixels: the scene is put into each state and rendered, without physics."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from caliper.data.buffer import ReplayBuffer
from caliper.data.dataset import Dataset
from caliper.envs.base import VectorEnv
from caliper.types import CaliperError, Obs


def replay(env: VectorEnv, dataset: Dataset, buffer: ReplayBuffer, progress: bool = True) -> None:
    """Renders every state of a dataset and adds its episodes to a buffer, in the dataset's order.

    Worlds are filled across the borders of episodes, so that every batch but the last is full. They are left
    in the states they showed last: reset the environment before stepping it.

    Args:
        env: the scene the dataset belongs to (see `Dataset.check`).
        dataset: states, actions and rewards.
        buffer: where the episodes go; must have room for all of them.
        progress: whether to show a progress bar.

    Raises:
        CaliperError: the buffer has not enough room, or holds other observations than the environment gives.
    """
    if env.spec != buffer.spec:
        raise CaliperError(
            f"the environment gives {env.spec} but the replay buffer holds {buffer.spec}; make them the same"
        )
    if buffer.num_frames + dataset.num_frames > buffer.capacity:
        raise CaliperError(
            f"{dataset.path or 'the dataset'} has {dataset.num_frames} frames but the replay buffer has room "
            f"for {buffer.capacity - buffer.num_frames}; raise its capacity"
        )
    states = np.concatenate(
        [part for e in dataset.episodes for part in (e.states, e.final_state[None])]
    )  # (frames, s)
    waiting = iter(dataset.episodes)
    episode = next(waiting, None)
    ready = env.observe()[:0].to(buffer.device)  # frames rendered and not yet inserted
    with tqdm(total=len(states), desc="replay", unit="frame", disable=not progress) as bar:
        for batch in torch.split(torch.as_tensor(states), env.num_envs):  # (m, s)
            env.set_state(batch.to(env.device))
            ready = Obs.cat([ready, env.observe()[: len(batch)].to(buffer.device)])
            while episode is not None and len(ready) > (t := len(episode)):
                actions = torch.as_tensor(episode.actions, device=buffer.device)
                rewards = torch.as_tensor(episode.rewards, device=buffer.device)
                buffer.add_episode(ready[: t + 1], actions, rewards, episode.terminated)
                ready, episode = ready[t + 1 :], next(waiting, None)
            bar.update(len(batch))

"""Recorded states into pixels: the scene is put into each state and rendered, without physics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from tqdm import tqdm

from caliper.data.buffer import ReplayBuffer
from caliper.data.dataset import Dataset, Episode
from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import ONCE, VisualAugmentation
from caliper.envs.scene.reach import unreachable
from caliper.errors import CaliperError
from caliper.types import Obs


def state_fault(dataset: Dataset, model: Any) -> str | None:
    """Where recorded states can't be those of a scene, an MjModel, and why: the first of them, or None."""
    for demo, episode in zip(dataset.demos, dataset.episodes, strict=True):
        states = np.concatenate([episode.states, episode.final_state[None]])  # (t + 1, s)
        if fault := unreachable(model, states):
            return f"in {demo}, row {fault[0]}, {fault[1]}"
    return None


def replay(
    env: VectorEnv,
    dataset: Dataset,
    buffer: ReplayBuffer,
    progress: bool = True,
    augmentation: VisualAugmentation = ONCE,
) -> None:
    """Renders every state of a dataset and adds its episodes to a buffer, in the dataset's order.

    The envs are left in the states they showed last: reset the environment before stepping it.

    Args:
        env: the scene the dataset belongs to (see `Dataset.check`).
        dataset: states, actions and rewards.
        buffer: where the episodes go; must have room for all of them, in each copy.
        progress: whether to show a progress bar.
        augmentation: copies of the episodes that look otherwise, after the dataset as it is.

    Raises:
        CaliperError: the buffer has not enough room, or holds other observations than the environment gives.
    """
    if env.spec != buffer.spec:
        raise CaliperError(
            f"the environment gives {env.spec} but the replay buffer holds {buffer.spec}; make them the same"
        )
    frames = dataset.num_frames * augmentation.copies
    if buffer.num_frames + frames > buffer.capacity:
        raise CaliperError(
            f"{dataset.path or 'the dataset'} has {frames} frames but the replay buffer has room "
            f"for {buffer.capacity - buffer.num_frames}; raise its capacity"
        )
    with tqdm(total=frames, desc="replay", unit="frame", disable=not progress) as bar:
        for copy in range(augmentation.copies):
            for episode, obs in rendered(env, dataset, augmentation, copy):
                _add(buffer, obs.to(buffer.device), episode, dataset)
                bar.update(len(obs))


def replay_stored(dataset: Dataset, buffer: ReplayBuffer, copies: int) -> None:
    """Adds what `replay` would, to a buffer whose frames are stored in that order."""
    for _ in range(copies):
        for episode in dataset.episodes:
            _add(buffer, None, episode, dataset)


def _add(buffer: ReplayBuffer, obs: Obs | None, episode: Episode, dataset: Dataset) -> None:
    actions = torch.as_tensor(episode.actions, device=buffer.device)
    rewards = torch.as_tensor(episode.rewards)
    buffer.add_episode(obs, actions, rewards, episode.terminated, dataset.returns)


def rendered(
    env: VectorEnv, dataset: Dataset, augmentation: VisualAugmentation = ONCE, copy: int = 0
) -> Iterator[tuple[Episode, Obs]]:
    """Each episode of a dataset with its t + 1 single frames, on the environment's device.

    Envs are filled across the borders of episodes, so that every batch but the last is full.

    Args:
        env: the scene the dataset belongs to; looks as the scene says again when all is rendered.
        dataset: the states.
        augmentation: how other copies than the first look.
        copy: which copy to render.
    """
    n = env.num_envs
    states = torch.as_tensor(
        np.concatenate([part for e in dataset.episodes for part in (e.states, e.final_state[None])])
    ).to(env.device)  # (frames, s)
    lengths = torch.tensor([len(e) + 1 for e in dataset.episodes])
    owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(env.device)  # (frames,)
    keys = augmentation.keys(owners, copy)
    waiting = iter(dataset.episodes)
    episode = next(waiting, None)
    ready = env.frame()[:0]  # frames rendered and not yet handed out
    try:
        for first in range(0, len(states), n):
            batch = states[first : first + n]  # (m, s)
            if keys is not None:
                env.set_appearance(pad(keys[first : first + n], (0, n - len(batch))), augmentation.ranges)
            env.set_state(batch)
            ready = Obs.cat([ready, env.frame()[: len(batch)]])
            while episode is not None and len(ready) > (t := len(episode)):
                yield episode, ready[: t + 1]
                ready, episode = ready[t + 1 :], next(waiting, None)
    finally:
        env.set_appearance(None)

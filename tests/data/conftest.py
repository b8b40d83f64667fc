"""A tiny environment whose every frame tells which state it shows, and episodes made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from caliper.data.buffer import ReplayBuffer
from caliper.data.dataset import DatasetMeta, Episode
from caliper.data.returns import RewardConfig
from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.types import Obs, ObsSpec, Step
from tests.recordings import edited, files, recordings  # noqa: F401  # fixtures

SPEC = ObsSpec(("front", "wrist"), 4, 3)


def frames(numbers: Tensor) -> Obs:
    """Observations that carry a number below 65536: its bytes in the two views, itself in proprio."""
    pixels = torch.stack([numbers % 256, numbers // 256], 1).to(torch.uint8)  # (n, v)
    return Obs(
        pixels[:, :, None, None, None].expand(-1, -1, 3, 4, 4).contiguous(),
        numbers[:, None].expand(-1, 3).float().contiguous(),
    )


def numbers(obs: Obs) -> Tensor:
    """What `frames` put in, read from the pixels; checks that proprio says the same."""
    low, high = obs.pixels[:, 0, 0, 0, 0].long(), obs.pixels[:, 1, 2, 3, 3].long()
    assert torch.equal(low + 256 * high, obs.proprio[:, 0].long())
    return low + 256 * high


class CountingEnv(VectorEnv):
    """Env i shows 1000 (i + 1) + 100 * episode + step; it succeeds after `goal[i]` steps or times out.

    Observations are views of buffers that the next call overwrites, as on a GPU.
    """

    def __init__(self, goal: list[int], horizon: int = 5) -> None:
        self.num_envs, self.device, self.spec, self.action_dim = len(goal), torch.device("cpu"), SPEC, 2
        self.horizon, self.state_dim, self.scene_hash = horizon, 3, "counting"
        self.goal = torch.tensor(goal)
        self.diverged = torch.zeros(len(goal), dtype=torch.bool)
        self.base = 1000 * (torch.arange(len(goal)) + 1)
        self.steps = torch.zeros(len(goal), dtype=torch.long)
        self.shown = torch.zeros(len(goal), dtype=torch.long)
        self.buffer = frames(self.shown)
        self.appearances: list[Tensor | None] = []  # what set_appearance was given
        self.reset()

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        self.shown = self.base.clone()
        return self.observe()

    def step(self, action: Tensor) -> Step:
        self.steps += 1
        self.shown += 1
        final, self.final_state = frames(self.shown), self.get_state()
        terminated = self.steps == self.goal
        truncated = (self.steps == self.horizon) & ~terminated
        self.steps[terminated | truncated] = 0
        self.shown = torch.where(terminated | truncated, self.shown // 100 * 100 + 100, self.shown)
        return Step(
            self.observe(), terminated.float(), terminated, truncated, final, terminated, self.diverged
        )

    def check(self) -> None:
        pass

    def observe(self) -> Obs:
        now = frames(self.shown)
        self.buffer.pixels.copy_(now.pixels)
        self.buffer.proprio.copy_(now.proprio)
        return self.buffer

    def get_state(self) -> Tensor:
        return self.shown[:, None].double().expand(-1, self.state_dim)

    def set_state(self, state: Tensor) -> None:
        assert state.dtype == torch.float64
        assert len(state) <= self.num_envs
        self.shown[: len(state)] = state[:, 1].long()

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        raise NotImplementedError

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        assert seeds is None or seeds.shape == (self.num_envs,)
        self.appearances.append(seeds)

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def make_buffer(capacity: int = 100, reward: RewardConfig | None = None) -> ReplayBuffer:
    return ReplayBuffer(capacity, SPEC, 2, reward or RewardConfig(gamma=0.97))


def add(buffer: ReplayBuffer, first: int, t: int, success: bool = False) -> None:
    """Adds an episode whose frames are numbered from `first` and whose actions are the numbers over 10000."""
    number = torch.arange(first, first + t + 1)
    rewards = torch.zeros(t)
    rewards[-1] = float(success)
    buffer.add_episode(frames(number), number[:t, None].expand(-1, 2) / 1e4, rewards, success)


def make_episode(first: int, t: int, success: bool = False, noise: float = 0.0) -> Episode:
    states = np.arange(first, first + t + 1, dtype=np.float64)[:, None].repeat(3, axis=1)
    rewards = np.zeros(t, dtype=np.float32)
    rewards[-1] = success
    actions = (states[:t, :2] / 1e4).astype(np.float32)
    return Episode(states[:t], states[t], actions, rewards, success, success, seed=first, noise=noise)


@pytest.fixture
def meta() -> DatasetMeta:
    return DatasetMeta(
        task="lift",
        scene_hash="abc123",
        mujoco_version="4.0.0",
        controller="osc_pose",
        control_freq=20,
        action_dim=2,
        state_dim=3,
        horizon=5,
        collector="expert",
        seed=7,
    )


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def written(tmp_path: Path, meta: DatasetMeta) -> Callable[..., Path]:
    """Writes episodes to a file and returns its path."""
    from caliper.data.formats.robomimic import DatasetWriter

    def write(*episodes: Episode) -> Path:
        path = tmp_path / "data" / "lift.hdf5"
        with DatasetWriter(path, meta) as writer:
            for episode in episodes:
                writer.add(episode)
        return path

    return write

"""The few types that every part of Caliper shares: tensors with names.

Shapes are written in one vocabulary: b batch, n envs, e ensemble, k sampled actions, t time, v views
(cameras), c h w image, a action, p proprioception, f features, s simulator state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ObsSpec:
    """What one observation holds: cameras, their side in pixels, length of the proprioception vector."""

    cameras: tuple[str, ...]
    size: int
    proprio: int


@dataclass(frozen=True, slots=True)
class Obs:
    """A batch of observations.

    Attributes:
        pixels: uint8 (n, v, 3, h, w), RGB, origin at the top left.
        proprio: float32 (n, p), see the task for the entries and their units.
    """

    pixels: Tensor
    proprio: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __getitem__(self, index: Any) -> Obs:
        return Obs(self.pixels[index], self.proprio[index])

    def to(self, device: torch.device | str) -> Obs:
        """The same observations on another device."""
        return Obs(self.pixels.to(device), self.proprio.to(device))

    @staticmethod
    def cat(parts: Sequence[Obs]) -> Obs:
        """Concatenates along the batch axis."""
        return Obs(torch.cat([p.pixels for p in parts]), torch.cat([p.proprio for p in parts]))


@dataclass(frozen=True, slots=True)
class Step:
    """What a vectorised environment returns for one control step of n envs (same-step autoreset).

    Attributes:
        obs: the observation to act on next; of the new episode where one has just ended.
        reward: float32 (n,), raw; sparse: 1 on the step that first meets the task's success, else 0. Only
            some environments of Gymnasium have another.
        terminated: bool (n,), the episode ended in success (a true terminal state: no bootstrap).
        truncated: bool (n,), the episode ran into the horizon (bootstrap from `final_obs`).
        final_obs: the observation the action led to, before any reset. Equals `obs` where nothing ended.
        success: bool (n,), the task's success test on the state the action led to.
        diverged: bool (n,), the physics blew up: the episode is `truncated`, its end is no observation to
            learn from, and it belongs into no buffer and no dataset.
    """

    obs: Obs
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Obs
    success: Tensor
    diverged: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions for one update.

    Attributes:
        obs: observations at which the actions were taken (b).
        action: float32 (b, a) in [-1, 1].
        reward: float32 (b,), after scale and bias.
        next_obs: observations that followed (b).
        terminal: float32 (b,), 1 where the next state is terminal (a time-out is not).
        mc_return: float32 (b,), discounted return of the recorded episode from this transition on; minus
            infinity where the recorded rewards don't tell it.
    """

    obs: Obs
    action: Tensor
    reward: Tensor
    next_obs: Obs
    terminal: Tensor
    mc_return: Tensor

    def __len__(self) -> int:
        return self.action.shape[0]

    @staticmethod
    def cat(parts: Sequence[Batch]) -> Batch:
        """Concatenates along the batch axis."""
        return Batch(
            Obs.cat([p.obs for p in parts]),
            torch.cat([p.action for p in parts]),
            torch.cat([p.reward for p in parts]),
            Obs.cat([p.next_obs for p in parts]),
            torch.cat([p.terminal for p in parts]),
            torch.cat([p.mc_return for p in parts]),
        )

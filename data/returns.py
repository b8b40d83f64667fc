"""Reward scaling and Monte-Carlo returns by the rules of Cal-QL (Nakamoto et al. 2023, arXiv:2303.05479)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from caliper.errors import CaliperError


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """How raw rewards become training rewards and returns.

    The default scale and bias turn the sparse {0, 1} into {-1, +10}, as D5RL's pixel Cal-QL does.

    Raises:
        CaliperError: `gamma` is outside [0, 1).
    """

    scale: float = 11.0  # training reward = scale * raw + bias
    bias: float = -1.0
    sparse: bool = True  # an episode without any reward counts as one that never ends
    gamma: float = field(kw_only=True)  # discount per control step; the agent's

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise CaliperError(
                f"the discount gamma is {self.gamma}; it must be at least 0 and below 1 (set agent.discount)"
            )

    def apply(self, raw: Tensor) -> Tensor:
        """Training rewards, float32, of raw ones."""
        return raw.float() * self.scale + self.bias

    def bounds(self) -> tuple[float, float]:
        """Smallest and largest return of an episode whose raw rewards are 0 until a 1 ends it, if ever."""
        solved, never = self.scale + self.bias, self.bias / (1 - self.gamma)
        return min(solved, never), max(solved, never)

    def returns(self, rewards: Tensor, terminals: Tensor) -> Tensor:
        """`mc_returns` of training rewards (t,) under this configuration."""
        return mc_returns(rewards, terminals, self.gamma, self.sparse, self.bias)


def mc_returns(rewards: Tensor, terminals: Tensor, gamma: float, sparse: bool, r_neg: float) -> Tensor:
    """Discounted return of one episode from each of its steps on.

    G[t] = r[t] + gamma * G[t + 1] * (1 - terminal[t]); but if the task is sparse and every reward is the
    negative one, the episode is taken to go on like that for ever: G = r_neg / (1 - gamma) at every step.

    Args:
        rewards: (t,), after scale and bias.
        terminals: (t,), 1 where the step led to a terminal state; a time-out is none.
        gamma: discount, below 1.
        sparse: whether the rule for all-negative episodes applies.
        r_neg: the reward, after scale and bias, of a step without success.

    Returns:
        float32 (t,), on the device of `rewards`.
    """
    if sparse and bool((rewards == r_neg).all()):
        return torch.full_like(rewards, r_neg / (1 - gamma), dtype=torch.float32)
    g, returns = 0.0, []
    # In Python: episodes are short, and sums keep double precision. Rewards should be on the host already.
    for reward, terminal in zip(reversed(rewards.tolist()), reversed(terminals.tolist()), strict=True):
        g = reward + gamma * g * (1 - terminal)
        returns.append(g)
    return torch.tensor(returns[::-1], dtype=torch.float32, device=rewards.device)

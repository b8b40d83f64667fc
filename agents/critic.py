"""What every agent with critics shares: an ensemble of Q functions on pixels and its slow copy, the target.

    y        = r + gamma (1 - d) V(s')
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

What V(s') is, the sub-classes say. Beyond the published algorithms, off by default: `mc_weight` m mixes the
recorded return into the target, y <- (1 - m) y + m G.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from caliper.agents.base import Agent, AgentConfig, Info, Noise, polyak
from caliper.agents.nets import Critic, MakeEncoder
from caliper.types import Batch, Obs


class CriticAgent(Agent):
    """An agent with an ensemble of critics, which own an encoder; the target averages that too.

    Attributes:
        updates: how many were made, and `online_updates`, how many since the switch.
    """

    has_critic = True
    config: CriticConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        self.critic = Critic(
            make_encoder,
            self.action_dim,
            cfg.critic_hidden,
            cfg.n_critics,
            layer_norm=cfg.layer_norm,
            encoder_per_critic=cfg.encoder_per_critic,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.updates = self.online_updates = 0

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return {"critic": (list(self.critic.parameters()), self.config.critic_lr)}

    def bellman(self, batch: Batch, value: Tensor) -> Tensor:
        """The target y (b,) from the value (b,) of the next state."""
        discount = self.config.discount**self.config.chunk  # of as many control steps as an action covers
        y: Tensor = batch.reward + discount * (1.0 - batch.terminal) * value
        if not self.config.mc_weight:
            return y
        returns = torch.where(batch.mc_return.isinf(), y, batch.mc_return)  # unknown changes nothing
        return torch.lerp(y, returns, self.config.mc_weight)

    def td_loss(self, q: Tensor, target: Tensor) -> tuple[Tensor, Info]:
        """Squared Bellman error, mean over the batch, summed over the ensemble; q (e, b), target (b,)."""
        loss = (q - target).square().mean(1).sum()
        info = {"critic/td_loss": loss, "critic/q_data": q.mean(), "critic/target": target.mean()}
        return loss, info | {"critic/loss": loss}  # a sub-class with more terms puts their sum there

    def begin(self) -> None:
        """See `Agent.begin`."""
        self.updates += 1
        self.online_updates += self.online

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        noise = super().draw(batch, noise)
        return replace(noise, shift_next=self.offsets(batch.next_obs, noise.shift_next))

    def follow(self) -> None:
        """See `Agent.follow`."""
        polyak(list(self.target_critic.parameters()), list(self.critic.parameters()), self.config.tau)

    @torch.no_grad()
    def q_values(self, obs: Obs, action: Tensor) -> Tensor:
        """See `Agent.q_values`."""
        with self.autocast():
            q: Tensor = self.critic(self.critic.encode(obs), action[:, None])
        return q[..., 0].amin(0)

    def train_state(self) -> dict[str, Any]:
        """See `Agent.train_state`."""
        return super().train_state() | {"updates": self.updates, "online_updates": self.online_updates}

    def load_train_state(self, state: dict[str, Any]) -> None:
        """See `Agent.load_train_state`."""
        super().load_train_state(state)
        self.updates, self.online_updates = state["updates"], state["online_updates"]


@dataclass(kw_only=True)
class CriticConfig(AgentConfig):
    """Keys of every agent with critics; the defaults are the official Cal-QL code's."""

    critic_hidden: Sequence[int] = (256, 256)  # widths of the critics' hidden layers
    critic_lr: float = 3e-4  # Adam
    n_critics: int = 2  # members of the Q ensemble
    layer_norm: bool = False  # LayerNorm before each ReLU of the critics
    encoder_per_critic: bool = False  # each Q has its own encoder instead of one for the ensemble
    discount: float = 0.99  # gamma
    tau: float = 0.005  # speed of the target's moving average
    mc_weight: float = 0.0  # m, share of the recorded return in the target

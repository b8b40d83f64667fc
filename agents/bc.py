"""Behaviour cloning: the actor alone, trained to give the recorded actions.

L_pi = mean |tanh(mean(s)) - a|^2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents.actor_critic import ActorConfig
from caliper.agents.base import DRAWN, Agent, Decision, Noise
from caliper.agents.nets import Actor, Info, MakeEncoder, Policy, bc_loss, descend, trained
from caliper.encoders import augment
from caliper.types import Batch, Obs


class BC(Agent):
    """Behaviour cloning; `update` and `bc_update` are the same step."""

    config: BCConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        self.updates += 1
        return self.bc_update(batch, noise)

    def bc_update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.bc_update`."""
        obs = augment(batch.obs, self.config.shift_pad, self.generator, noise.shift)
        with self.autocast:
            pi = self.actor(obs)
        loss, info = self.actor_loss(pi, batch.action)
        info |= descend(self.optimizers, {"actor": loss})
        return {name: value.detach() for name, value in info.items()}

    def actor_loss(self, pi: Policy, action: Tensor) -> tuple[Tensor, Info]:
        """L_pi on the recorded actions (b, a)."""
        loss = bc_loss(pi, action).mean()
        return loss, {"actor/loss": loss, "actor/bc_loss": loss}

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`."""
        with self.autocast:
            pi = self.actor(obs)
        return Decision(pi.mode() if deterministic else pi.sample(1, self.generator)[0][:, 0], pi)

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        self.actor = Actor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return {"actor": (trained(self.actor), self.config.bc_lr)}


@dataclass(kw_only=True)
class BCConfig(ActorConfig):
    """Keys of behaviour cloning."""

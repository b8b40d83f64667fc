"""Behaviour cloning: the actor alone, trained to give the recorded actions.

L_pi = mean |tanh(mean(s)) - a|^2          or, with clone_loss = nll,   -mean log pi(a|s)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from caliper.agents.actor import ActorConfig, clone_loss
from caliper.agents.base import Agent, Info, Noise
from caliper.agents.nets import Actor, MakeEncoder, Policy
from caliper.types import Batch, Obs


class BC(Agent):
    """Behaviour cloning; `update` and `clone` are the same step."""

    config: BCConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        self.actor = Actor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return {"actor": (list(self.actor.parameters()), self.config.clone_lr)}

    def actor_loss(self, pi: Policy, action: Tensor) -> tuple[Tensor, Info]:
        """The cloning loss on recorded actions (b, a)."""
        loss = clone_loss(pi, action, self.config.clone_loss).mean()
        return loss, {"actor/loss": loss, "actor/clone_loss": loss}

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        with self.autocast():
            pi = self.actor(self.augment(batch.obs, noise.shift))
        loss, info = self.actor_loss(pi, batch.action)
        return {"actor": loss}, info

    def clone(self, batch: Batch) -> Info:
        """See `Agent.clone`."""
        return self.update(batch)

    def policy(self, obs: Obs) -> Policy:
        """See `Agent.policy`."""
        pi: Policy = self.actor(obs)
        return pi


@dataclass(kw_only=True)
class BCConfig(ActorConfig):
    """Keys of behaviour cloning."""

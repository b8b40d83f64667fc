"""Advantage-weighted actor-critic (Nair et al. 2020, arXiv:2006.09359): cloning of what does better than pi.

    A        = min_e Q_e(s, a) - min_e Q_e(s, a~),           a~ ~ pi(.|s)
    L_pi     = mean -w log pi(a|s),                          w = min(exp(A / lambda), w_max)
    y        = r + gamma (1 - d) min_e Qbar_e(s', a'),       a' ~ pi(.|s')
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

The policy is a Gaussian in the action space with tanh mean and one learned deviation for all states. The
bound w_max on the weights is not in the paper: it keeps a few transitions from drowning the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig, Encoded
from caliper.agents.base import Info, Noise
from caliper.agents.nets import GaussianActor, MakeEncoder, Policy
from caliper.types import Batch


class AWAC(ActorCritic):
    """Advantage-weighted actor-critic; online it makes the same updates."""

    config: AWACConfig

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`."""
        return GaussianActor(make_encoder, self.action_dim, self.config.actor_hidden)

    @torch.no_grad()
    def advantage(self, x: Encoded, pi: Policy, q: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """By how much (b,) the data's actions, of values q (e, b), beat one sample of the policy."""
        action, _ = pi.sample(self.normal(noise.eps_pi, len(x.batch), 1))
        q_pi = self.critic(x.features, action)[..., 0].amin(0)  # (b,)
        return q.amin(0) - q_pi, {"critic/q_pi": q_pi.mean()}

    def actor_loss(self, pi: Policy, action: Tensor, advantage: Tensor) -> tuple[Tensor, Info]:
        """Cloning of the recorded actions (b, a), each weighed by its `advantage` (b,)."""
        weight = (advantage / self.config.temperature).exp().clamp(max=self.config.max_weight)  # (b,)
        loss, info = self.weighted_clone(pi, action, weight)
        return loss, info | {"actor/advantage": advantage.mean()}

    @torch.no_grad()
    def target(self, x: Encoded, noise: Noise) -> Tensor:
        """The Bellman target (b,): minimum over the target ensemble of one sample of the policy's value."""
        action, _ = x.pi_next.sample(self.normal(noise.eps_target, len(x.batch), 1))
        return self.bellman(x.batch, self.target_critic(x.target_features, action)[..., 0].amin(0))

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        losses: dict[str, Tensor] = {}
        info: Info = {}
        with self.autocast():
            x = self.encode(batch, noise)
            q = self.critic(x.features, batch.action[:, None])[..., 0]  # (e, b)
            if x.pi is not None:
                advantage, info = self.advantage(x, x.pi, q, noise)
                losses["actor"], more = self.actor_loss(x.pi, batch.action, advantage)
                info |= more
            losses["critic"], more = self.td_loss(q, self.target(x, noise))
        return losses, info | more

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        b = len(batch)
        return replace(
            super().draw(batch, noise),
            eps_pi=self.normal(noise.eps_pi, b, 1) if self.acting else None,
            eps_target=self.normal(noise.eps_target, b, 1),
        )


@dataclass(kw_only=True)
class AWACConfig(ActorCriticConfig):
    """Keys of AWAC."""

    actor_lr: float = 3e-4  # Adam
    temperature: float = 1.0  # lambda; the smaller, the more sharply the advantage weighs
    max_weight: float = 100.0  # w_max, the largest weight of a recorded action
